"""`prepare`: corpus -> manifest. Makes the built-in corpus, or reads one that the user brings."""

import logging
import sys
from collections import Counter
from typing import Any

from data import storage
from data.config import BuiltinCorpus
from data.corpus.brought import bring, content_fields, content_id
from data.corpus.builtin import make_music, make_speech
from data.corpus.summary import plan_brought, plan_builtin, summarize
from data.errors import InputError
from data.frozen import result_fields
from data.manifest import write_manifest
from ray_jobs.job import Job, Run
from ray_jobs.job import main as run_main
from ray_jobs.prepare_steps import STEPS, has_steps, run_steps, step_fields
from ray_jobs.recipe import Recipe

log = logging.getLogger("antiphon")


def work(run: Run) -> None:
    """Write manifest.jsonl, quarantine.jsonl and summary.json, and audio/ where the audio is in no files yet."""
    corpus, folder = run.recipe.corpus, run.folder
    quarantine: list[dict[str, Any]] = []
    if isinstance(corpus, BuiltinCorpus):
        utterances = make_speech(corpus, run.recipe.seed, folder.path)
        utterances += make_music(corpus, run.recipe.seed, folder.path)
    else:
        brought = bring(corpus, folder.path)
        utterances, quarantine = brought.utterances, brought.quarantine
        if has_steps(corpus):
            stepped = run_steps(corpus, utterances, folder.path)
            utterances, quarantine = stepped.utterances, [*quarantine, *stepped.quarantine]
            storage.write_jsonl(folder.file("unaligned.jsonl"), stepped.unaligned)
    write_manifest(folder.file("manifest.jsonl"), utterances)
    storage.write_jsonl(folder.file("quarantine.jsonl"), quarantine)
    if not utterances:
        raise InputError(f"nothing of the corpus can be used: {folder.file('quarantine.jsonl')} has the reasons")
    summary = summarize(utterances, len(quarantine))
    storage.write_json(folder.file("summary.json"), summary)
    storage.delete(folder.file("parts"))
    storage.delete(folder.file(STEPS))
    reasons = ", ".join(f"{count} {reason}" for reason, count in Counter(row["reason"] for row in quarantine).items())
    log.info(
        "prepare: %d utterances, %.2f h, %d quarantined%s",
        summary["utterances"],
        summary["hours"],
        len(quarantine),
        f" ({reasons})" if reasons else "",
    )


def fields(recipe: Recipe) -> dict[str, Any]:
    """What changes the result. A brought corpus enters by its content (`raw_inputs`), not by its path."""
    if isinstance(recipe.corpus, BuiltinCorpus):
        return {"corpus": result_fields(recipe.corpus), "seed": recipe.seed}
    return {"corpus": {**content_fields(recipe.corpus), **step_fields(recipe.corpus)}}


def raw_inputs(recipe: Recipe) -> list[str]:
    """The hash of a brought corpus' listing and metadata."""
    return [] if isinstance(recipe.corpus, BuiltinCorpus) else [content_id(recipe.corpus)]


def inspect(recipe: Recipe) -> list[str]:
    """Hours, speakers, rates, lengths and problems, without making or decoding anything."""
    if isinstance(recipe.corpus, BuiltinCorpus):
        return plan_builtin(recipe.corpus, recipe.seed)
    return plan_brought(recipe.corpus, recipe.tokenize.max_duration_s)


JOB = Job(name="prepare", version=1, work=work, fields=fields, raw_inputs=raw_inputs, inspect=inspect)


def main(argv: list[str] | None = None) -> int:
    """The command line."""
    return run_main(JOB, argv)


if __name__ == "__main__":
    sys.exit(main())
