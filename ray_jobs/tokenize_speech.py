"""`tokenize_speech`: manifest -> token store, with Ray Data. Bad files go to quarantine; finished shards are kept."""

import logging
import sys
from typing import Any

from data import storage
from data.errors import InputError, TooManyBadError
from data.frozen import result_fields
from data.store import SHARDS
from ray_jobs import fit_tokenizer, prepare
from ray_jobs.job import Job, Run
from ray_jobs.job import main as run_main
from ray_jobs.recipe import Recipe
from ray_jobs.session import start_ray
from ray_jobs.tokenize_graph import tokenize_shards
from ray_jobs.tokenize_shard import ATTEMPTS, PARTS, ShardPlan, plan_shards

log = logging.getLogger("antiphon")


def work(run: Run) -> None:
    """Write shards/, quarantine.jsonl and summary.json. Raises TooManyBadError after everything is written."""
    config = run.recipe.tokenize
    manifest = storage.join(run.inputs["prepare"], "manifest.jsonl")
    tokenizers = {
        name: storage.join(run.inputs["fit_tokenizer"], name)
        for name in run.recipe.tokenizers
        if storage.exists(storage.join(run.inputs["fit_tokenizer"], name, "config.json"))
    }
    plans = list(plan_shards(manifest, config.shard_utterances))
    if not plans:
        raise InputError(f"{manifest} holds no utterance: see quarantine.jsonl beside it for the reasons")
    written = set(storage.list_files(run.folder.file(SHARDS)))
    pending = [plan for plan in plans if f"{plan.name}.parquet" not in written]
    log.info("tokenize_speech: %d of %d shards to do", len(pending), len(plans))
    if pending:
        start_ray()
        tokenize_shards(pending, manifest, tokenizers, run.folder.path, config)
    _summarize(run, plans)


def _summarize(run: Run, plans: list[ShardPlan]) -> None:
    """Merge the shards' parts; what `prepare` could not read counts and is listed with the rest."""
    parts = [storage.read_json(run.folder.file(PARTS, f"{plan.name}.json")) for plan in plans]
    before = storage.join(run.inputs["prepare"], "quarantine.jsonl")
    quarantine: list[dict[str, Any]] = list(storage.read_jsonl(before)) if storage.exists(before) else []
    for part in parts:
        quarantine += part["quarantine"]
    storage.write_jsonl(run.folder.file("quarantine.jsonl"), quarantine)
    utterances = sum(part["utterances"] for part in parts)
    summary = {
        "utterances": utterances,
        "hours": sum(part["seconds"] for part in parts) / 3600,
        "shards": len(parts),
        "codes": {name: sum(part["codes"][name] for part in parts) for name in parts[0]["codes"]},
        "quarantined": len(quarantine),
    }
    storage.write_json(run.folder.file("summary.json"), summary)
    storage.delete(run.folder.file(ATTEMPTS))
    log.info("tokenize_speech: %d utterances, %.2f h, %d quarantined", utterances, summary["hours"], len(quarantine))
    share = len(quarantine) / (utterances + len(quarantine))
    if share > run.recipe.tokenize.max_bad_fraction or not utterances:
        reasons = sorted({str(row["reason"]) for row in quarantine})
        raise TooManyBadError(
            f"{len(quarantine)} of {utterances + len(quarantine)} utterances ({share:.1%}) are quarantined "
            f"({', '.join(reasons)}), more than tokenize.max_bad_fraction={run.recipe.tokenize.max_bad_fraction:g}: "
            f"look into {run.folder.file('quarantine.jsonl')}, or run again with a higher bound (what is done is kept)"
        )


def plan(recipe: Recipe) -> list[str]:
    """Placement and shard size."""
    config = recipe.tokenize
    return [
        f"shards  {config.shard_utterances} utterances each, streams {', '.join(recipe.tokenizers)}",
        f"actors  {config.num_workers} x {config.num_cpus:g} CPU, {config.num_gpus:g} GPU",
    ]


def fields(recipe: Recipe) -> dict[str, Any]:
    """What changes the result beside the manifest and the tokenizers."""
    return {"tokenize": result_fields(recipe.tokenize)}


JOB = Job(
    name="tokenize_speech",
    version=1,
    work=work,
    fields=fields,
    upstream=lambda recipe: [prepare.JOB, fit_tokenizer.JOB],
    plan=plan,
)


def main(argv: list[str] | None = None) -> int:
    """The command line."""
    return run_main(JOB, argv)


if __name__ == "__main__":
    sys.exit(main())
