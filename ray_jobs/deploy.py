"""python -m ray_jobs.deploy RECIPE [model=PATH]: serve a model folder until SIGTERM; prints its URL alone."""

import contextlib
import logging
import sys
from typing import TextIO

from data import storage
from data.errors import InputError, TooManyBadError
from data.run_folder import RunFolderBusyError
from ray_jobs.endpoint import serve_until_stopped
from ray_jobs.job import (
    Job,
    Run,
    check_arguments,
    check_submitted_paths,
    configure_logging,
    ensure,
    parse_arguments,
)
from ray_jobs.job import main as run_main
from ray_jobs.recipe import Recipe, load_recipe

log = logging.getLogger("antiphon")


def upstream(recipe: Recipe) -> list[Job]:
    """The training whose model is served, unless a folder is given."""
    from ray_jobs.train import JOB as TRAIN

    return [] if recipe.model else [TRAIN]


def plan(recipe: Recipe) -> list[str]:
    """What `--dry-run` says of the endpoint."""
    config = recipe.serve
    port = config.port or "a free port"
    return [
        f"serves  {recipe.model or 'the model that train makes'} at {config.host}, {port}",
        f"places  {config.min_replicas} to {config.max_replicas} replicas of {config.num_cpus:g} CPUs "
        f"and {config.num_gpus:g} GPUs each",
    ]


def work(run: Run) -> None:
    """Serving leaves no artifact: `main` blocks instead of making a run folder."""
    raise NotImplementedError("deploy serves until it is stopped; call ray_jobs.deploy.main")


JOB = Job("deploy", 1, work, lambda recipe: {}, upstream=upstream, plan=plan, arguments=("model",))


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
    """Exit 0 after SIGTERM or SIGINT and a drain, 1 failed, 2 bad input, 3 too much quarantined upstream."""
    configure_logging()
    options = parse_arguments(JOB, argv)
    if options.dry_run:
        return run_main(JOB, argv)
    stdout = sys.stdout
    # Ray and DeepSpeed print warnings to stdout, where the URL is to stand alone.
    with contextlib.redirect_stdout(sys.stderr):
        return _serve(options.recipe, options.overrides, stdout)


def _serve(path: str, overrides: list[str], stdout: TextIO) -> int:
    try:
        recipe = load_recipe(path, overrides)
        check_submitted_paths(recipe)
        check_arguments(JOB, recipe)
        folder = model_folder(recipe)
        # The id names the weights, so that whoever evaluates this endpoint knows what it evaluated.
        serve_until_stopped({f"{recipe.name}-{storage.hash_folder(folder)[:12]}": folder}, recipe.serve, stdout)
    except InputError as error:
        log.error("%s", error)
        return 2
    except TooManyBadError as error:
        log.error("%s", error)
        return 3
    except RunFolderBusyError as error:
        log.error("%s", error)
        return 1
    except Exception:
        log.exception("deploy failed")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
