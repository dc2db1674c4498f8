"""The token stream of a phase as a training uses it: read ahead by threads, announced, and tied to its checkpoints."""

import json
import logging
from collections import deque
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from typing import Any

from data import storage
from data.config import PhaseMixture
from data.errors import InputError
from data.frozen import result_fields
from data.mixture import format_mixture_table
from data.packing import Batch
from data.stream import TokenStream
from model.checkpoint_files import read_manifest
from model.deepspeed_config import padded_rows
from model.schedule import PhasePlan
from model.train_config import TrainConfig
from ray_jobs.train_parts import TrainParts

log = logging.getLogger("antiphon")

TABLE_DOCUMENTS = 100_000  # documents that the table of a phase's start is made from, about
ENDING_BYTES = 8192  # of a shard, read for its fingerprint


def read_batches(
    stream: TokenStream, plan: PhasePlan, train: TrainConfig, first: int, rank: int, world_size: int
) -> Iterator[tuple[int, Batch, str]]:
    """(step of the run, this worker's rows, fingerprint of all rows on rank 0) from step `first` to the phase's last.

    Each of `train.loader_threads` threads renders a step of its own, ahead of its use: the batches are the same for
    any number of them. All workers get the same number of batches, of the same shape.
    """
    rows = padded_rows(train.global_batch_rows, train.micro_batch_rows, world_size) // world_size

    def render(step: int) -> tuple[Batch, str]:
        batch = stream.rows(step, rank, world_size, rows)
        return batch, stream.batch_hash(step) if rank == 0 else ""

    warned: set[str] = set()
    threads_used = train.loader_threads
    steps = iter(range(first, plan.last_step))
    with ThreadPoolExecutor(threads_used) as threads:
        ahead = deque((step, threads.submit(render, step - plan.first_step)) for step in islice(steps, threads_used))
        while ahead:
            step, pending = ahead.popleft()
            batch, batch_hash = pending.result()
            ahead.extend((later, threads.submit(render, later - plan.first_step)) for later in islice(steps, 1))
            if rank == 0:
                _warn_of_ends(stream, plan, warned)
            yield step, batch, batch_hash
    if rank == 0:  # whose fingerprints have every row rendered
        _tell_left_out(stream, plan)


def log_mixture(plan: PhasePlan, stream: TokenStream) -> None:
    """Print the table "asked / got / repeated" of a phase, from all its steps or from as many of the first as have
    TABLE_DOCUMENTS documents. Raises InputError where a step has nothing to show."""
    per_step = sum(len(row) for row in stream.plan(0))
    num_steps = max(1, min(plan.steps, TABLE_DOCUMENTS // max(1, per_step)))
    table = stream.mixture_table(num_steps)
    part = "all" if num_steps == plan.steps else f"the first {num_steps} of"
    unit = plan.config.unit
    log.info(
        "train: phase %s, shares of %s over %s %d steps\n%s",
        plan.config.name, unit, part, plan.steps, format_mixture_table(table),
    )  # fmt: skip
    _warn_of_ends(stream, plan, set())


def _warn_of_ends(stream: TokenStream, plan: PhasePlan, warned: set[str]) -> None:
    for source, step in stream.planner.ended.items():
        if source not in warned:
            warned.add(source)
            log.warning(
                "train: phase %s: task %s has been shown max_epochs=%g times by step %d; its share goes to the others",
                plan.config.name, source, plan.config.max_epochs[source], plan.first_step + step + 1,
            )  # fmt: skip


def _tell_left_out(stream: TokenStream, plan: PhasePlan) -> None:
    for what, counts in (("left out", stream.planner.num_dropped), ("split", stream.planner.num_split)):
        for source, count in counts.items():
            if count:
                log.warning(
                    "train: phase %s: at least %d records of task %s had more tokens than a row and were %s",
                    plan.config.name, count, source, what,
                )  # fmt: skip
    for source, count in stream.sources.dropped_codes.items():
        log.warning(
            "train: phase %s: %d codes of task %s were left out, which make no whole frame at the end of their records",
            plan.config.name, count, source,
        )  # fmt: skip


def stream_fingerprint(parts: TrainParts, plan: PhasePlan) -> dict[str, str]:
    """What the batches of a phase are a function of, by part: hashes of 12 hex digits."""
    recipe, train = parts.recipe, parts.recipe.train
    mixture = result_fields(plan.config)
    content = {
        "store": _shards(parts.inputs["tokenize_speech"]),
        "text_tokenizer": storage.hash_folder(storage.join(parts.inputs["fit_tokenizer"], "text")),
        "vocabulary": [[block.name, block.start, block.size] for block in parts.vocabulary.blocks]
        + [list(parts.vocabulary.markers)],
        "sequences": [result_fields(recipe.grammar), sorted(parts.grammars)],
        "mixture": {name: mixture[name] for name in PhaseMixture.model_fields if name in mixture},
        "rows": [train.sequence_length, train.global_batch_rows, train.over_long, plan.steps],
        "seed": [recipe.seed, plan.index],
    }
    return {name: storage.hash_json({name: value})[:12] for name, value in content.items()}


def sampler_state(stream: TokenStream, step: int) -> str:
    """What `resume_stream` needs to go on with a step of the phase: one line of JSON."""
    return json.dumps(stream.state(step), separators=(",", ":"))


def resume_stream(parts: TrainParts, stream: TokenStream, checkpoint: str) -> None:
    """Let a phase's stream go on where a checkpoint within the phase was saved. Without the state, or where the data
    has changed since, the steps before are planned again. Raises InputError as `check_resumable` does."""
    manifest = read_manifest(checkpoint)
    changed = check_resumable(parts, checkpoint)
    if manifest.get("sampler") and not changed:
        stream.resume(json.loads(manifest["sampler"]))


def check_resumable(parts: TrainParts, checkpoint: str) -> bool:
    """Refuse to go on from a checkpoint whose stream was another, unless `train.resume_anyway`; whether it was.

    Raises InputError that names what has changed, with the fingerprints of then and of now. A recipe that changes
    gets another run folder; what is found here was changed in place: a store, a tokenizer, or a vocabulary. Formats
    are known by their configuration: that the code now writes one otherwise is not found.
    """
    found = changed_since(parts, read_manifest(checkpoint))
    if not found:
        return False
    changes = ", ".join(f"{name} ({then} when it was saved, {now} now)" for name, (then, now) in found.items())
    if not parts.recipe.train.resume_anyway:
        raise InputError(
            f"{checkpoint} was trained on other data: {changes}; start again with --fresh, or set "
            "train.resume_anyway=true to go on with what is there now"
        )
    log.warning("train: going on, as asked, although the data has changed: %s", changes)
    return True


def changed_since(parts: TrainParts, manifest: Mapping[str, Any]) -> dict[str, tuple[str, str]]:
    """Parts of the stream's fingerprint that differ from those in a checkpoint's manifest: (then, now)."""
    then = manifest.get("fingerprint")
    plan = next((plan for plan in parts.phases if plan.config.name == manifest["phase"]), None)
    if not then or plan is None:
        return {}
    now = stream_fingerprint(parts, plan)
    return {name: (then.get(name, "none"), now[name]) for name in now if then.get(name) != now[name]}


def _shards(store: str) -> list[list[Any]]:
    """Name, size and end of every shard: there Parquet keeps its account of the columns (places, sizes, extremes)."""
    found: list[list[Any]] = []
    for name, size in storage.list_sizes(store).items():
        if name.endswith(".parquet"):
            ending = storage.read_range(storage.join(store, name), max(0, size - ENDING_BYTES), size)
            found.append([name, size, storage.hash_bytes(ending)])
    return found
