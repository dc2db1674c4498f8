"""Ray Data graph of tokenize_speech: shard plans in, a pool of actors that write shards, counts out.

What travels through the object store are plans and counts of some hundred bytes; audio is read, decoded and encoded
inside one actor, and codes leave it as Parquet.
"""

import logging
import time
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import ray
from ray.data import ActorPoolStrategy, DataContext

from data.config import TokenizeConfig
from ray_jobs.tokenize_shard import ShardPlan, ShardTokenizer, UtteranceEncoder

log = logging.getLogger("antiphon")


class ShardActor:
    """A worker of the pool. `encoder_kind` lets tests put a faulty encoder in."""

    def __init__(self, encoder_kind: type[UtteranceEncoder], encoder_arguments: tuple[Any, ...], folder: str) -> None:
        import torch

        torch.set_num_threads(1)
        self.tokenizer = ShardTokenizer(encoder_kind(*encoder_arguments), folder)

    def __call__(self, batch: dict[str, Any]) -> dict[str, list[Any]]:
        plans = [ShardPlan(*(batch[name][i].item() for name in PLAN_FIELDS)) for i in range(len(batch["index"]))]
        parts = [self.tokenizer.write(plan) for plan in plans]
        return {
            "utterances": [part["utterances"] for part in parts],
            "bad": [len(part["quarantine"]) for part in parts],
            "seconds": [float(part["seconds"]) for part in parts],
        }


PLAN_FIELDS = tuple(ShardPlan.__dataclass_fields__)


def tokenize_shards(
    plans: list[ShardPlan],
    manifest_path: str,
    tokenizers: Mapping[str, str],
    folder: str,
    config: TokenizeConfig,
    encoder_kind: type[UtteranceEncoder] = UtteranceEncoder,
) -> None:
    """Write the shards of `plans` into `folder` on the cluster that Ray is joined to.

    An actor that dies is replaced and its shard begun anew (Ray Data retries system faults without end; the shard's
    second attempt is guarded, see ShardTokenizer.write). An exception in our own code fails the job.
    """
    if not plans:
        return
    context = DataContext.get_current()
    context.enable_progress_bars = False
    for noisy in ("ray.data", "ray.data._internal"):
        logging.getLogger(noisy).setLevel(logging.ERROR)
    actors = min(config.num_workers, len(plans))
    dataset = ray.data.from_items([asdict(plan) for plan in plans], override_num_blocks=len(plans)).map_batches(
        ShardActor,
        fn_constructor_args=(encoder_kind, (manifest_path, dict(tokenizers), config.max_duration_s), folder),
        batch_size=1,
        # A pool of fixed size never replaces an actor that leaves by itself; a bounded one does.
        compute=ActorPoolStrategy(min_size=1, max_size=actors, initial_size=actors),
        num_cpus=config.num_cpus,
        num_gpus=config.num_gpus or None,
    )
    started, done, done_s, total_s = time.monotonic(), 0, 0.0, sum(plan.seconds for plan in plans)
    for row in dataset.iter_rows():
        done, done_s = done + 1, done_s + row["seconds"]
        log.info(
            "tokenize_speech: %d/%d shards, %.2f/%.2f h, %.0f x real time",
            done,
            len(plans),
            done_s / 3600,
            max(done_s, total_s) / 3600,
            done_s / (time.monotonic() - started),
        )
