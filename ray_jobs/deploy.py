"""python -m ray_jobs.deploy RECIPE [model=PATH]: serve a model folder until SIGTERM; prints its URL alone."""

import sys
from typing import TextIO

from data import storage
from ray_jobs.endpoint import serve_until_stopped
from ray_jobs.job import (
    Command,
    Job,
    configure_logging,
    ensure,
    load_checked_recipe,
    parse_arguments,
    print_plan,
    run_command,
)
from ray_jobs.recipe import Recipe


def upstream(recipe: Recipe) -> list[Job]:
    """The training whose model is served, unless a folder is given."""
    from ray_jobs.train import JOB as TRAIN

    return [] if recipe.model else [TRAIN]


def plan(recipe: Recipe) -> list[str]:
    """What `--dry-run` says of the endpoint."""
    config = recipe.serve
    port = config.port or "any that is free"
    return [
        f"serves  {recipe.model or 'the model that train makes'} at {config.host}, port {port}",
        f"places  {config.min_replicas} to {config.max_replicas} replicas x {config.num_cpus:g} CPU, "
        f"{config.num_gpus:g} GPU",
    ]


COMMAND = Command(name="deploy", upstream=upstream, plan=plan, arguments=("model",))


def model_folder(recipe: Recipe) -> str:
    """The folder to serve: the one given, else the one that train has made or now makes. Raises InputError."""
    from model.export import read_info

    folder = recipe.model
    if folder is None:
        (train,) = upstream(recipe)
        folder = ensure(train, recipe.without_arguments()).file("model")
    read_info(folder)
    return folder


def main(argv: list[str] | None = None) -> int:
    """Exit 0 after SIGTERM or SIGINT and a drain; otherwise as every job."""
    configure_logging()
    options = parse_arguments(COMMAND, argv)

    def act(stdout: TextIO) -> None:
        recipe = load_checked_recipe(COMMAND, options.recipe, options.overrides)
        if options.dry_run:
            print_plan(COMMAND, recipe, stdout)
            return
        folder = model_folder(recipe)
        # The id names the weights, so that whoever evaluates this endpoint knows what it evaluated.
        serve_until_stopped({f"{recipe.name}-{storage.hash_folder(folder)[:12]}": folder}, recipe.serve, stdout)

    return run_command(COMMAND.name, act)


if __name__ == "__main__":
    sys.exit(main())
