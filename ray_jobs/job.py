"""What every job is: a name, the fields and inputs its id hangs on, and the work. Runs it, or what it lacks."""

import argparse
import contextlib
import logging
import os
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, TextIO, TypeVar

import yaml

from data import storage
from data.errors import InputError, RunError, TooManyBadError
from data.run_folder import Lease, RunFolder, RunFolderBusyError, describe_environment, run_id
from ray_jobs.recipe import ARGUMENTS, Recipe, load_recipe
from ray_jobs.recipe_keys import key_lines

log = logging.getLogger("antiphon")
Found = TypeVar("Found")


@dataclass(frozen=True)
class Run:
    """What a job's work gets: the recipe, its own folder, and the folders of its inputs by job name."""

    recipe: Recipe
    folder: RunFolder
    inputs: dict[str, str]


@dataclass(frozen=True, kw_only=True)
class Command:
    """What every command line has.

    `upstream` gives the jobs whose folders it reads, `plan` its own lines of `--dry-run`, `arguments` which of
    `phase=`, `model=` and their like it takes.
    """

    name: str
    upstream: Callable[[Recipe], list["Job"]] = lambda recipe: []
    plan: Callable[[Recipe], list[str]] = lambda recipe: []
    arguments: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Job(Command):
    """One arrow of the road: a command that leaves a folder.

    `fields` gives the configuration that changes the result; `raw_inputs` content ids of what the user brought;
    `artifact` the part of the folder that stdout names; `inspect` what the dry runs of this job and of all that need
    it say of what was brought; `ready` raises InputError for what the work would stop at, before anything is made that
    it needs; `check` raises InputError for a finished folder that can no longer be used. Raise `version` when the
    results of unchanged fields change.
    """

    version: int
    work: Callable[[Run], None]
    fields: Callable[[Recipe], dict[str, Any]]
    raw_inputs: Callable[[Recipe], list[str]] = lambda recipe: []
    artifact: str = ""
    inspect: Callable[[Recipe], list[str]] = lambda recipe: []
    ready: Callable[[Recipe], object] = lambda recipe: None
    check: Callable[[RunFolder], None] = lambda folder: None

    def id(self, recipe: Recipe) -> str:
        """The id of this job's run under `recipe`, from fields and inputs alone."""
        above = recipe.without_arguments()
        inputs = [job.id(above) for job in self.upstream(recipe)] + self.raw_inputs(recipe)
        return run_id(self.name, self.version, self.fields(recipe), inputs)

    def folder(self, recipe: Recipe) -> RunFolder:
        """Where this job's run lives, made or not."""
        identity = self.id(recipe)
        return RunFolder(storage.join(recipe.runs_dir, f"{self.name}-{identity}"), identity)


def ensure(job: Job, recipe: Recipe, fresh: bool = False) -> RunFolder:
    """The finished folder of `job`: found, resumed or made, after whatever it needs upstream."""
    folder = job.folder(recipe)
    above = recipe.without_arguments()
    folder.provenance = {
        "job": job.name,
        "version": job.version,
        "recipe": recipe.model_dump(mode="json"),
        "inputs": [needed.folder(above).path for needed in job.upstream(recipe)],
        "raw_inputs": job.raw_inputs(recipe),
        **describe_environment(),
    }
    if folder.done and not fresh:
        job.check(folder)
        changed = " (warning: the source tree has changed since)" if folder.source_changed() else ""
        log.info("%s: found %s%s", job.name, folder.path, changed)
        return folder
    for needed in _needed_by(job, recipe):
        needed.ready(above)
    # Absolute: workers of Ray have working directories of their own.
    inputs = {needed.name: storage.absolute(ensure(needed, above).path) for needed in job.upstream(recipe)}
    with Lease(folder):
        if fresh:
            folder.clear()
        log.info("%s: %s %s", job.name, "resuming" if folder.started else "starting", folder.path)
        started = time.monotonic()
        folder.begin()
        job.work(Run(recipe, replace(folder, path=storage.absolute(folder.path)), inputs))
        folder.finish(time.monotonic() - started)
    log.info("%s: done in %.1f s", job.name, time.monotonic() - started)
    return folder


def main(job: Job, argv: list[str] | None = None) -> int:
    """The command line of a job: results on stdout, its folder last."""
    configure_logging()
    options = parse_arguments(job, argv)

    def act(results: TextIO) -> None:
        recipe = load_checked_recipe(job, options.recipe, options.overrides)
        if options.dry_run:
            print_plan(job, recipe, results)
            return
        folder = ensure(job, recipe, fresh=options.fresh)
        print(folder.file(job.artifact) if job.artifact else folder.path, file=results, flush=True)

    return run_command(job.name, act)


def load_checked_recipe(command: Command, path: str, overrides: list[str]) -> Recipe:
    """The recipe, with arguments that the command takes and paths that it can keep. Raises InputError."""
    recipe = load_recipe(path, overrides)
    for path in filter(None, _paths(recipe).values()):
        if storage.is_url(path):
            storage.check_protocol(path)
    check_submitted_paths(recipe)
    check_arguments(command, recipe)
    return recipe


def run_command(name: str, act: Callable[[TextIO], None]) -> int:
    """Exit code of `act`: 0 done, 1 failed, 2 bad recipe, arguments or input, 3 too much quarantined.

    `act` gets the real stdout for its results. Whatever else is printed, by Ray and DeepSpeed above all, goes to
    stderr, until a Ray that was started meanwhile has said its last word.
    """
    ray_before = _live_ray()
    results = sys.stdout
    with contextlib.redirect_stdout(sys.stderr):
        try:
            act(results)
        except InputError as error:
            log.error("%s", error)
            return 2
        except TooManyBadError as error:
            log.error("%s", error)
            return 3
        except (RunFolderBusyError, RunError) as error:
            log.error("%s", error)
            return 1
        except Exception:
            log.exception("%s failed", name)
            return 1
        finally:
            ray = _live_ray()
            if ray is not None and ray_before is None:
                ray.shutdown()
    return 0


def _live_ray() -> Any:
    """The ray module when this process has joined a cluster, else None; without importing it."""
    ray = sys.modules.get("ray")
    return ray if ray is not None and ray.is_initialized() else None


def check_submitted_paths(recipe: Recipe) -> None:
    """Under `ray job submit` the working directory is a temporary copy: relative paths would be lost with it.

    Raises InputError that names the key and says what to give instead.
    """
    if "RAY_JOB_CONFIG_JSON_ENV_VAR" not in os.environ:
        return
    for key, path in _paths(recipe).items():
        if path and not storage.is_url(path) and not os.path.isabs(path):
            raise InputError(
                f"{key}={path!r} is relative, and under `ray job submit` the working directory is a temporary "
                "copy: give an absolute path or a URL that every node can reach"
            )


def _paths(recipe: Recipe) -> dict[str, str | None]:
    """The places that a recipe and its arguments name, by key."""
    return {
        "runs_dir": recipe.runs_dir,
        **_corpus_paths("corpus", recipe.corpus),
        **{name: getattr(recipe, name) for name in ("model", "mixture", "checkpoint")},
    }


def _corpus_paths(key: str, corpus: Any) -> dict[str, str | None]:
    """Where a corpus lies, or each of several, by key of the recipe."""
    found = {f"{key}.{name}": getattr(corpus, name, None) for name in ("manifest", "path")}
    for name, one in getattr(corpus, "corpora", {}).items():
        found |= _corpus_paths(f"{key}.corpora.{name}", one)
    return found


def configure_logging() -> None:
    """Progress and logs go to stderr; stdout is for results."""
    logging.basicConfig(stream=sys.stderr, level=logging.INFO, format="%(asctime)s %(message)s", datefmt="%H:%M:%S")
    for noisy in ("httpx", "httpcore", "matplotlib", "numba", "fsspec", "urllib3"):
        logging.getLogger(noisy).setLevel(logging.WARNING)


def print_plan(command: Command, recipe: Recipe, out: TextIO) -> None:
    """`--dry-run`: the resolved recipe, what will be read and written, and the job's own lines.

    Where something that was to be brought is missing, the lines that do without it, then one InputError of all that is.
    """
    problems: list[str] = []
    lines = _told(lambda: _folder_lines(command, recipe), problems)
    for needed in _told(lambda: _needed_by(command, recipe), problems):
        lines += _told(partial(needed.inspect, recipe.without_arguments()), problems)
    resolved = yaml.safe_dump(recipe.model_dump(mode="json"), sort_keys=False, allow_unicode=True)
    print("\n".join([resolved, *lines, *command.plan(recipe)]), file=out)
    whole = [problem for problem in dict.fromkeys(problems) if not any(problem in o and problem != o for o in problems)]
    if whole:
        raise InputError("\n".join(whole))


def _told(look: Callable[[], list[Found]], problems: list[str]) -> list[Found]:
    """What `look` finds; nothing where it raises InputError, which is put to the problems."""
    try:
        return look()
    except InputError as error:
        problems.append(str(error))
        return []


def _folder_lines(command: Command, recipe: Recipe) -> list[str]:
    """What is read and written."""
    above = recipe.without_arguments()
    lines = []
    for needed in command.upstream(recipe):
        found = needed.folder(above)
        lines.append(f"reads   {found.path}{'' if found.done else '  (will be made first)'}")
    if isinstance(command, Job):
        folder = command.folder(recipe)
        lines.append(f"writes  {folder.path}{'  (done already)' if folder.done else ''}")
    return lines


def _needed_by(command: Command, recipe: Recipe) -> list[Job]:
    """Every job whose result `command` hangs on, itself included, each once and inputs first."""
    found: dict[str, Job] = {}
    for needed in command.upstream(recipe):
        found |= {job.name: job for job in _needed_by(needed, recipe.without_arguments())}
    if isinstance(command, Job):
        found[command.name] = command
    return list(found.values())


def parse_arguments(command: Command, argv: list[str] | None) -> argparse.Namespace:
    """recipe, overrides, dry_run and, of a job, fresh, in any order; `--help` lists every key of a recipe."""
    parser = argparse.ArgumentParser(
        prog=f"python -m ray_jobs.{command.name}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog="keys:\n" + "\n".join(key_lines(Recipe)),
    )
    parser.add_argument("recipe", help="YAML recipe, e.g. configs/demo.yaml")
    parser.add_argument(
        "overrides", nargs="*", metavar="dotted.key=value", help="override a key of the recipe, or scale=NAME"
    )
    parser.add_argument("--dry-run", action="store_true", help="print what would be done, and exit")
    if isinstance(command, Job):
        parser.add_argument("--fresh", action="store_true", help="compute anew, whatever is there")
    return parser.parse_intermixed_args(argv)


def check_arguments(command: Command, recipe: Recipe) -> None:
    """Refuse `phase=`, `model=` and their like where the job has no use for them. Raises InputError."""
    for name in ARGUMENTS:
        if getattr(recipe, name) is not None and name not in command.arguments:
            takes = ", ".join(command.arguments) or "no arguments"
            raise InputError(f"{command.name} takes no {name}={getattr(recipe, name)!r}: it takes {takes}")
