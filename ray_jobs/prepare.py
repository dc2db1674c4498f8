"""`prepare`: corpus -> manifest. Makes the built-in corpus, or imports a manifest without decoding its audio."""

import logging
import sys
from typing import Any

from data import storage
from data.config import BuiltinCorpus
from data.corpus.builtin import make_music, make_speech
from data.corpus.config import ManifestCorpus
from data.corpus.imported import import_manifest, manifest_bytes
from data.corpus.summary import plan_builtin, plan_imported, summarize
from data.frozen import result_fields
from data.manifest import write_manifest
from ray_jobs.job import Job, Run
from ray_jobs.job import main as run_main
from ray_jobs.recipe import Recipe

log = logging.getLogger("antiphon")


def work(run: Run) -> None:
    """Write manifest.jsonl, quarantine.jsonl and summary.json, and for the built-in corpus audio/."""
    corpus, folder = run.recipe.corpus, run.folder
    quarantine: list[dict[str, Any]] = []
    if isinstance(corpus, BuiltinCorpus):
        utterances = make_speech(corpus, run.recipe.seed, folder.path)
        utterances += make_music(corpus, run.recipe.seed, folder.path)
    else:
        imported = import_manifest(corpus)
        utterances, quarantine = imported.utterances, imported.quarantine
    write_manifest(folder.file("manifest.jsonl"), utterances)
    storage.write_jsonl(folder.file("quarantine.jsonl"), quarantine)
    summary = summarize(utterances, len(quarantine))
    storage.write_json(folder.file("summary.json"), summary)
    storage.delete(folder.file("parts"))
    log.info("prepare: %d utterances, %.2f h, %d quarantined", summary["utterances"], summary["hours"], len(quarantine))


def fields(recipe: Recipe) -> dict[str, Any]:
    """What changes the result. A brought manifest enters by its bytes (`raw_inputs`), not by its path."""
    corpus = result_fields(recipe.corpus)
    if isinstance(recipe.corpus, ManifestCorpus):
        del corpus["manifest"]
        return {"corpus": corpus}
    return {"corpus": corpus, "seed": recipe.seed}


def raw_inputs(recipe: Recipe) -> list[str]:
    """The hash of a brought manifest's bytes."""
    if isinstance(recipe.corpus, ManifestCorpus):
        return [storage.hash_bytes(manifest_bytes(recipe.corpus))]
    return []


def plan(recipe: Recipe) -> list[str]:
    """Counts, hours, speakers and rates, without making or decoding anything."""
    if isinstance(recipe.corpus, BuiltinCorpus):
        return plan_builtin(recipe.corpus, recipe.seed)
    return plan_imported(recipe.corpus)


JOB = Job(name="prepare", version=1, work=work, fields=fields, raw_inputs=raw_inputs, plan=plan)


def main(argv: list[str] | None = None) -> int:
    """The command line."""
    return run_main(JOB, argv)


if __name__ == "__main__":
    sys.exit(main())
