"""`draw_instructions`: descriptions of tasks beside the built-in ones, from an OpenAI-compatible endpoint.

What the endpoint has said is kept in the run folder: trainings with the same `grammar.draw` all use it.
"""

import logging
import sys
from typing import Any

from data import storage
from data.config import GrammarConfig
from data.errors import InputError
from data.frozen import result_fields
from data.grammar.instructions import built_in, draw_from_endpoint
from data.grammar.sequence_format import Instructed
from ray_jobs.job import Job, Run
from ray_jobs.job import main as run_main
from ray_jobs.recipe import Recipe

log = logging.getLogger("antiphon")
FILE = "instructions.json"


def work(run: Run) -> None:
    """Write instructions.json: set -> the built-in descriptions, then the drawn ones."""
    draw = run.recipe.grammar.draw
    if draw is None:
        raise InputError(
            "the recipe draws no instructions: set grammar.draw, e.g. grammar.draw={endpoint: http://…/v1, asr: 20}"
        )
    sets = {}
    for name, count in draw.counts.items():
        drawn = draw_from_endpoint(draw.endpoint, draw.model, name, count)
        log.info("draw_instructions: %d new descriptions of %s", len(drawn), name)
        sets[name] = [*built_in()[name], *drawn]
    storage.write_json(run.folder.file(FILE), sets)


def with_drawn(grammar: GrammarConfig, inputs: dict[str, str]) -> GrammarConfig:
    """The grammar whose formats ask in the drawn words, too, where they have none of their own."""
    if JOB.name not in inputs:
        return grammar
    drawn = {name: tuple(lines) for name, lines in storage.read_json(storage.join(inputs[JOB.name], FILE)).items()}
    formats = {
        task: form.model_copy(update={"instructions": {**drawn, **form.instructions}})
        if isinstance(form, Instructed)
        else form
        for task, form in grammar.formats.items()
    }
    return grammar.model_copy(update={"formats": formats})


def wanted_by(recipe: Recipe) -> list[Job]:
    """This job, where the recipe draws instructions."""
    return [JOB] if recipe.grammar.draw is not None else []


def _fields(recipe: Recipe) -> dict[str, Any]:
    return {} if recipe.grammar.draw is None else result_fields(recipe.grammar.draw)


def _plan(recipe: Recipe) -> list[str]:
    draw = recipe.grammar.draw
    return ["asks    nobody: set grammar.draw"] if draw is None else [f"asks    {draw.endpoint} for {draw.counts}"]


JOB = Job(name="draw_instructions", version=1, work=work, fields=_fields, plan=_plan, artifact=FILE)


def main(argv: list[str] | None = None) -> int:
    """The command line."""
    return run_main(JOB, argv)


if __name__ == "__main__":
    sys.exit(main())
