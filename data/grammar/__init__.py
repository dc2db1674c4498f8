"""Grammars: how records become sequences and back."""
