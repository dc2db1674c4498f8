"""`prepare`: corpus -> manifest. Makes the built-in corpus, or reads one that the user brings."""

import logging
import os
import sys
from collections import Counter
from dataclasses import replace
from functools import partial
from itertools import islice
from typing import Any

from data import storage
from data.config import BuiltinCorpus
from data.corpus.brought import bring, content_fields, content_id, corpora_of, of_each
from data.corpus.builtin import make_music, make_speech
from data.corpus.config import BroughtCorpus, SeveralCorpora
from data.corpus.steps_config import CtcAlignment
from data.corpus.summary import plan_brought, plan_builtin, problem_lines, summarize
from data.errors import InputError
from data.frozen import result_fields
from data.manifest import resolve_path, write_manifest
from data.run_folder import RunFolder
from ray_jobs.job import Job, Run
from ray_jobs.job import main as run_main
from ray_jobs.prepare_part import Outcome
from ray_jobs.prepare_steps import STEPS, has_steps, run_steps, step_fields
from ray_jobs.recipe import Recipe
from ray_jobs.weights import check_pins, pin_lines, weight_lines, weight_paths, with_pins

log = logging.getLogger("antiphon")

LOOKED_AT = 10  # recordings of a manifest that was found


def work(run: Run) -> None:
    """Write manifest.jsonl, quarantine.jsonl and summary.json, and audio/ where the audio is in no files yet."""
    corpus, folder = run.recipe.corpus, run.folder
    quarantine: list[dict[str, Any]] = []
    if isinstance(corpus, BuiltinCorpus):
        utterances = make_speech(corpus, run.recipe.seed, folder.path)
        utterances += make_music(corpus, run.recipe.seed, folder.path)
    else:
        brought, warnings = _bring_all(corpora_of(corpus), folder.path, run.recipe.tokenize.stall_s)
        storage.write_jsonl(folder.file("warnings.jsonl"), warnings)
        for line in problem_lines(warnings):
            log.warning("prepare: kept, see warnings.jsonl: %s", line.strip())
        utterances, quarantine = brought.utterances, brought.quarantine
        if any(map(has_steps, corpora_of(corpus).values())):
            storage.write_jsonl(folder.file("unaligned.jsonl"), brought.unaligned)
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


def _bring_all(corpora: dict[str, BroughtCorpus], folder: str, stall_s: float) -> tuple[Outcome, list[dict[str, Any]]]:
    """What the corpora hold, one after the other, after the steps of each; and rows of what is doubtful in it."""
    whole, taken, warnings = Outcome(), dict[str, int](), list[dict[str, Any]]()
    for name, corpus in corpora.items():
        found = bring(corpus, folder, taken)
        outcome = Outcome(found.utterances)
        if has_steps(corpus):
            outcome = run_steps(corpus, found.utterances, folder, stall_s, name)
        if name:
            outcome.utterances = [replace(u, extra={"corpus": name, **u.extra}) for u in outcome.utterances]
        whole.quarantine += found.quarantine
        whole.add(outcome)
        warnings += found.warnings()
    return whole, warnings


def check_audio(folder: RunFolder) -> None:
    """Raises InputError for a finished folder whose recordings are gone from where its manifest says they are."""
    manifest = folder.file("manifest.jsonl")
    rows = islice(storage.read_jsonl(manifest), LOOKED_AT)
    paths = [resolve_path(manifest, row["audio_filepath"]).partition("#bytes=")[0] for row in rows]
    if paths and not any(storage.is_url(path) or os.path.exists(path) for path in paths):
        raise InputError(
            f"{manifest} names {paths[0]}, and neither that nor the recordings after it are there: has the corpus been "
            "moved? A corpus is known by its content, so run prepare again with --fresh; what was made from it stays"
        )


def fields(recipe: Recipe) -> dict[str, Any]:
    """What changes the result. A brought corpus enters by its content (`raw_inputs`), not by its path."""
    corpus = recipe.corpus
    if isinstance(corpus, BuiltinCorpus):
        return {"corpus": result_fields(corpus), "seed": recipe.seed}
    known = {name: {**content_fields(one), **step_fields(one)} for name, one in corpora_of(corpus).items()}
    return {"corpus": {"kind": corpus.kind, "corpora": known} if isinstance(corpus, SeveralCorpora) else known[""]}


def raw_inputs(recipe: Recipe) -> list[str]:
    """The hash of each brought corpus' listing and metadata."""
    return [] if isinstance(recipe.corpus, BuiltinCorpus) else list(of_each(recipe.corpus, content_id).values())


def inspect(recipe: Recipe) -> list[str]:
    """Hours, speakers, rates, lengths and problems, without making or decoding anything."""
    if isinstance(recipe.corpus, BuiltinCorpus):
        return plan_builtin(recipe.corpus, recipe.seed)
    aligners = _aligners(recipe)
    look = partial(_inspect_brought, recipe.corpus, recipe.tokenize.max_duration_s, aligners)
    return with_pins(look, aligners)


def _inspect_brought(
    corpus: BroughtCorpus | SeveralCorpora, max_duration_s: float, aligners: dict[str, CtcAlignment | None]
) -> list[str]:
    planned = of_each(corpus, partial(plan_brought, max_duration_s=max_duration_s))
    named: dict[str, str | None] = {}
    for key, config in aligners.items():
        named |= weight_paths(key, config)
    return [line for lines in planned.values() for line in lines] + weight_lines(named)


def ready(recipe: Recipe) -> None:
    """Raises InputError where an aligner from the hub has no commit, before corpora are read for it."""
    if pin_lines(_aligners(recipe)) and not JOB.folder(recipe).done:
        check_pins(_aligners(recipe))


def _aligners(recipe: Recipe) -> dict[str, CtcAlignment | None]:
    if isinstance(recipe.corpus, BuiltinCorpus):
        return {}
    return {
        f"corpus.corpora.{name}.alignment" if name else "corpus.alignment": corpus.alignment
        for name, corpus in corpora_of(recipe.corpus).items()
    }


JOB = Job(
    name="prepare",
    version=1,
    work=work,
    fields=fields,
    raw_inputs=raw_inputs,
    inspect=inspect,
    ready=ready,
    check=check_audio,
)


def main(argv: list[str] | None = None) -> int:
    """The command line."""
    return run_main(JOB, argv)


if __name__ == "__main__":
    sys.exit(main())
