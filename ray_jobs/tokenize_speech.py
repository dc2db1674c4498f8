"""`tokenize_speech`: manifest -> token store, with Ray Data. Bad files go to quarantine; finished shards are kept."""

import logging
import sys
from collections import Counter
from collections.abc import Iterator
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
from ray_jobs.tokenize_log import TokenizeLog
from ray_jobs.tokenize_plan import ShardPlan, plan_shards
from ray_jobs.tokenize_shard import ATTEMPTS, PARTS

log = logging.getLogger("antiphon")


def work(run: Run) -> None:
    """Write shards/, quarantine.jsonl, summary.json and metrics.jsonl.

    Raises TooManyBadError after everything is written, and StalledError where nothing moves any more.
    """
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
        start_ray(dashboard=False)
        with TokenizeLog(run.folder.path, plans, pending) as progress:
            tokenize_shards(pending, manifest, tokenizers, run.folder.path, config, show=progress.show)
    _summarize(run, plans)


def _summarize(run: Run, plans: list[ShardPlan]) -> None:
    """Merge the shards' parts, one in memory at a time; what `prepare` could not read counts and is listed too."""
    summary: dict[str, Any] = {"utterances": 0, "seconds": 0.0, "shards": 0, "codes": {}, "quarantined": 0}
    reasons: Counter[str] = Counter()

    def quarantine() -> Iterator[dict[str, Any]]:
        before = storage.join(run.inputs["prepare"], "quarantine.jsonl")
        yield from storage.read_jsonl(before) if storage.exists(before) else ()
        for plan in plans:
            part = storage.read_json(run.folder.file(PARTS, f"{plan.name}.json"))
            _add(summary, part)
            yield from part["quarantine"]

    def counted() -> Iterator[dict[str, Any]]:
        for row in quarantine():
            reasons[str(row["reason"])] += 1
            yield row

    storage.write_jsonl(run.folder.file("quarantine.jsonl"), counted())
    summary["hours"] = summary.pop("seconds") / 3600
    summary |= {"quarantined": reasons.total(), "reasons": dict(sorted(reasons.items()))}
    storage.write_json(run.folder.file("summary.json"), summary)
    storage.delete(run.folder.file(ATTEMPTS))
    _check_share(run, summary)


def _add(summary: dict[str, Any], part: dict[str, Any]) -> None:
    summary["utterances"] += part["utterances"]
    summary["seconds"] += part["seconds"]
    summary["shards"] += 1
    for name, codes in part["codes"].items():
        summary["codes"][name] = summary["codes"].get(name, 0) + codes


def _check_share(run: Run, summary: dict[str, Any]) -> None:
    """The line that the job ends with. Raises TooManyBadError above tokenize.max_bad_fraction."""
    good, bad, bound = summary["utterances"], summary["quarantined"], run.recipe.tokenize.max_bad_fraction
    listed = ", ".join(f"{count} {reason}" for reason, count in summary["reasons"].items())
    log.info(
        "tokenize_speech: %d utterances, %.2f h, %d quarantined%s",
        good,
        summary["hours"],
        bad,
        f" ({listed})" if bad else "",
    )
    if bad / (good + bad) > bound or not good:
        raise TooManyBadError(
            f"{bad} of {good + bad} utterances ({bad / (good + bad):.1%}) are quarantined ({listed}), more than "
            f"tokenize.max_bad_fraction={bound:g}: look into {run.folder.file('quarantine.jsonl')}, "
            "or run again with a higher bound (what is done is kept)"
        )


def plan(recipe: Recipe) -> list[str]:
    """Placement and shard size."""
    config = recipe.tokenize
    return [
        f"shards  {config.shard_utterances} utterances each, streams {', '.join(recipe.tokenizers)}",
        f"batches {config.batch_seconds:g} s of padded audio each",
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
