"""Runs every step of the main job in order, anew, or from where an interrupted demo stopped."""

import argparse
import logging
import os
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TextIO

from data import storage
from data.frozen import result_fields
from data.run_folder import RunFolder
from eval.report import render_headline
from ray_jobs import fit_judges, fit_tokenizer, prepare, run_eval, tokenize_speech, train, train_vocoder, tune
from ray_jobs.job import Job, configure_logging, ensure, run_command
from ray_jobs.recipe import Recipe, load_recipe
from ray_jobs.session import start_ray

log = logging.getLogger("antiphon")

# Steps on one line do not need each other and are made of tasks of one core, so Ray packs them side by side.
STEPS: tuple[tuple[Job, ...], ...] = (
    (prepare.JOB,),
    (fit_tokenizer.JOB,),
    (tokenize_speech.JOB,),
    (train_vocoder.JOB, fit_judges.JOB, tune.JOB),
    (train.JOB,),
    (run_eval.JOB,),
)


class DemoState:
    """Whether the last demo of these runs was interrupted, and which of its steps are begun."""

    def __init__(self, recipe: Recipe) -> None:
        self.path = storage.join(recipe.runs_dir, "demo-state.json")
        self.recipe_id = storage.hash_json(result_fields(recipe))
        last = storage.read_json(self.path) if storage.exists(self.path) else {}
        resumes = last.get("recipe_id") == self.recipe_id and not last.get("finished", True)
        self.begun: list[str] = last["begun"] if resumes else []

    def begin(self, step: str) -> bool:
        """Note that a step has begun; whether it has to be computed anew."""
        fresh = step not in self.begun
        if fresh:
            self.begun.append(step)
            self._write(finished=False)
        return fresh

    def finish(self) -> None:
        """Note that the whole demo is done: the next one starts anew."""
        self._write(finished=True)

    def _write(self, finished: bool) -> None:
        state = {"recipe_id": self.recipe_id, "begun": self.begun, "finished": finished}
        storage.write_json(self.path, state)


def run_demo(recipe: Recipe) -> tuple[RunFolder, dict[str, float]]:
    """Every step of the main job. The folder of the report, and the seconds that each step took."""
    state = DemoState(recipe)
    if state.begun:
        log.info("demo: resuming the interrupted one at %s", state.begun[-1])
    start_ray()
    spent: dict[str, float] = {}

    def run_step(job: Job) -> RunFolder:
        log.info("demo: %s (planned %s s)", job.name, _planned(recipe, job.name))
        started = time.monotonic()
        # `begin` is asked before the work: a step that was interrupted is resumed, one never begun is made anew.
        folder = ensure(job, recipe, fresh=state.begin(job.name))
        spent[job.name] = time.monotonic() - started
        log.info("demo: %s took %.0f s (planned %s s)", job.name, spent[job.name], _planned(recipe, job.name))
        return folder

    for side_by_side in STEPS:
        if len(side_by_side) == 1:
            folders = [run_step(side_by_side[0])]  # in this thread, which alone can catch SIGTERM: training saves on it
            continue
        with ThreadPoolExecutor(len(side_by_side)) as pool:
            folders = list(pool.map(run_step, side_by_side))
    state.finish()
    return folders[-1], spent


def main(argv: list[str] | None = None) -> int:
    """The command line: the steps' seconds, the result table, the report's path and, last, its folder on stdout."""
    configure_logging()
    parser = argparse.ArgumentParser(prog="python -m ray_jobs.demo", description=__doc__)
    parser.add_argument("recipe", help="YAML recipe, e.g. configs/demo.yaml")
    parser.add_argument("overrides", nargs="*", metavar="dotted.key=value")
    options = parser.parse_args(argv)

    def act(results: TextIO) -> None:
        recipe = load_recipe(options.recipe, options.overrides)
        folder, spent_s = run_demo(recipe)
        _link(recipe, folder)
        print(_times(recipe, spent_s), file=results)
        print(render_headline(storage.read_json(folder.file("report.json"))), file=results)
        print(folder.file("report.html"), folder.path, sep="\n", file=results, flush=True)

    return run_command("demo", act)


def _planned(recipe: Recipe, name: str) -> str:
    return f"{recipe.planned_s[name]:.0f}" if name in recipe.planned_s else "?"


def _times(recipe: Recipe, spent_s: dict[str, float]) -> str:
    rows = [f"{'step':<16} {'planned s':>9} {'spent s':>8}"]
    rows += [f"{name:<16} {_planned(recipe, name):>9} {seconds:>8.1f}" for name, seconds in spent_s.items()]
    return "\n".join(rows)


def _link(recipe: Recipe, folder: RunFolder) -> None:
    """`<runs_dir>/demo` points at the last report; object stores have no links."""
    if storage.is_url(recipe.runs_dir):
        return
    link = Path(recipe.runs_dir, "demo")
    if link.is_symlink():
        link.unlink()
    os.symlink(Path(folder.path).name, link)
