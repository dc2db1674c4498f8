"""Errors that a user can act on. Jobs map them to exit codes."""


class InputError(ValueError):
    """Bad recipe, arguments or input: exit code 2. The message names the value seen and the remedy."""


class TooManyBadError(RuntimeError):
    """More utterances were quarantined than the recipe allows: exit code 3."""


class RunError(RuntimeError):
    """Recipe and input are right, yet the work cannot go on: exit code 1. The message names what happened and where."""
