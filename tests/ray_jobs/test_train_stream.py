"""The stream as a training reads it: the same for any workers, threads and resumes; tied to what it was made of."""

import hashlib
import json
import logging
from itertools import count
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data import storage
from data.config import GrammarConfig
from data.errors import InputError
from data.grammar.formats.anygpt import AnyGpt
from data.grammar.template import build_grammars
from data.packing import Batch
from data.planning import Planner
from data.store import Record, StreamInfo, TokenStore, write_shard
from data.stream import TokenStream
from data.vocabulary import build_vocabulary
from model.checkpoint_files import FORMAT_VERSION
from model.schedule import PhasePlan
from model.train_config import PhaseConfig, TrainConfig
from ray_jobs.train_parts import load_parts
from ray_jobs.train_stream import (
    changed_since,
    check_resumable,
    log_mixture,
    read_batches,
    resume_stream,
    sampler_state,
    stream_fingerprint,
)
from tests.data.test_stream import CONFIG, GRAMMARS, RECORDS, STREAMS, TOKENIZER, make_stream, phase
from tests.ray_jobs.tiny_store import tiny_recipe, write_inputs

ROWS, STEPS, FIRST = 5, 12, 100
MIXTURES = (
    {},
    {"unit": "samples", "crop_probability": 0.0},
    {"weight_schedule": [{"step": 8, "weights": {"lm": 1.0}}], "temperature": 2.0},
    {"max_epochs": {"asr": 1.0}, "picks": "largest_deficit"},
)


def plan_of(mixture: dict) -> PhasePlan:
    return PhasePlan(PhaseConfig(steps_fraction=1, **phase(**mixture).model_dump()), 0, FIRST, STEPS)


def train_config(plan: PhasePlan, threads: int) -> TrainConfig:
    return TrainConfig(phases=(plan.config,), global_batch_rows=ROWS, micro_batch_rows=2, loader_threads=threads)


def global_hash(batches: list[Batch]) -> str:
    """Of the rows of all ranks, put together as they are dealt out: ids, labels, positions and weights."""
    rows = [(batches[index % len(batches)], index // len(batches)) for index in range(ROWS)]
    names = ("ids_BT", "labels_BT", "position_ids_BT", "weights_BT")
    arrays = [np.stack([getattr(batch, name)[row] for batch, row in rows]) for name in names]
    return hashlib.sha256(b"".join(array.tobytes() for array in arrays)).hexdigest()


def read(seed: int, mixture: dict, workers: int, threads: int, first: int, state: str | None = None) -> list[str]:
    """Hashes of the global batches from step `first` on, each worker with a stream of its own."""
    plan = plan_of(mixture)
    by_rank = []
    for rank in range(workers):
        stream = make_stream(seed, **mixture)
        if state is not None:
            stream.resume(json.loads(state))
        by_rank.append(list(read_batches(stream, plan, train_config(plan, threads), FIRST + first, rank, workers)))
    assert {len(batches) for batches in by_rank} == {STEPS - first}  # every rank takes the same number of steps
    assert len({batch.ids_BT.shape for batches in by_rank for _, batch, _ in batches}) == 1  # of as many micro steps
    assert [step for step, _, _ in by_rank[-1]] == list(range(FIRST + first, FIRST + STEPS))
    return [global_hash([batch for _, batch, _ in step]) for step in zip(*by_rank, strict=True)]


def check_global_batches(seed: int, mixture: dict, step: int) -> None:
    """Any workers x any threads x resumed at `step`, from a state or planned again: the hashes of one stream."""
    stream = make_stream(seed, **mixture)
    whole = [global_hash([stream.rows(number)]) for number in range(STEPS)]
    assert len(set(whole)) == STEPS
    saved = sampler_state(stream, step)
    for workers in (1, 2, 3, 4):
        for threads in (1, 2, 4):
            first, state = [(step, saved), (step, None), (0, None)][(workers + threads) % 3]
            assert read(seed, mixture, workers, threads, first, state) == whole[first:]


@settings(max_examples=1, deadline=None)
@given(st.integers(0, 10_000), st.sampled_from(MIXTURES), st.integers(4, STEPS - 1))
def test_global_batches_are_the_same_for_any_workers_threads_and_resume(seed: int, mixture: dict, step: int) -> None:
    check_global_batches(seed, mixture, step)


@pytest.mark.slow
@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10_000), st.sampled_from(MIXTURES), st.integers(1, STEPS - 1))
def test_global_batches_are_the_same_for_many_seeds_and_resumes(seed: int, mixture: dict, step: int) -> None:
    check_global_batches(seed, mixture, step)


def test_a_state_may_be_taken_while_threads_read_ahead() -> None:
    plan = plan_of({})
    stream = make_stream(3)
    states = {}
    for step, _, _ in read_batches(stream, plan, train_config(plan, 4), FIRST, 0, 1):
        states[step + 1 - FIRST] = sampler_state(stream, step + 1 - FIRST)
    for step, state in states.items():
        other = make_stream(3)
        if step < STEPS:
            other.plan(step - 1)
            assert sampler_state(other, step) == state


def test_no_document_is_lost_or_repeated_within_an_epoch_whoever_reads_it() -> None:
    mixture = {"weights": {"asr": 1.0}, "max_epochs": {"asr": 1}, "crop_probability": 0.0}
    streams = [make_stream(5, **mixture) for _ in range(3)]
    seen: list[int] = []

    def show_all() -> None:
        for step, rank in ((step, rank) for step in count() for rank in range(3)):
            seen.extend(document.record for row in streams[rank].plan(step)[rank::3] for document in row)

    with pytest.raises(InputError, match="nothing left"):
        show_all()
    assert sorted(seen) == list(range(120))


@pytest.mark.parametrize(("over_long", "said"), [("drop", "left out"), ("split", "split")])
def test_at_a_phases_end_one_worker_tells_what_was_too_long(
    caplog: pytest.LogCaptureFixture, over_long: str, said: str
) -> None:
    long = Record("long", " ".join(["one"] * 300), "amy")
    plan = plan_of({"weights": {"lm": 1.0}})
    arguments = ([*RECORDS, long], GRAMMARS, CONFIG.groups, plan.config, STEPS, 128, ROWS, 1, STREAMS)
    for rank in (0, 1):
        stream = TokenStream(*arguments, over_long=over_long)
        with caplog.at_level(logging.INFO, logger="antiphon"):
            assert len(list(read_batches(stream, plan, train_config(plan, 1), FIRST, rank, 2))) == STEPS
    (message,) = caplog.messages
    assert message.endswith(f"at least 1 records of task text_lm had more tokens than a row and were {said}")


def test_at_a_phases_end_codes_of_ragged_frames_are_counted(caplog: pytest.LogCaptureFixture) -> None:
    config = GrammarConfig(formats={"music": AnyGpt()}, groups={"music": ("music",)})
    streams = {"music": StreamInfo(50.0, 4, 64, "m")}
    vocabulary = build_vocabulary(TOKENIZER, streams, config, [])
    grammars = build_grammars(config, vocabulary, TOKENIZER, streams)
    clips = [Record(f"{n}", caption="one", streams={"music": np.arange(n, dtype=np.int16)}) for n in (8, 11, 14)]
    plan = plan_of({"weights": {"music": 1.0}, "loss_weights": {}})
    with caplog.at_level(logging.INFO, logger="antiphon"):
        for rank in (0, 1):
            stream = TokenStream(clips, grammars, config.groups, plan.config, STEPS, 256, ROWS, 1, streams)
            assert len(list(read_batches(stream, plan, train_config(plan, 2), FIRST, rank, 2))) == STEPS
    (message,) = caplog.messages
    assert "5 codes of task music were left out" in message  # 3 and 2, however often they were shown


def test_the_table_is_printed_with_how_much_of_the_phase_it_covers(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    mixture = {"max_epochs": {"asr": 0.2}, "crop_probability": 0.0}
    with caplog.at_level(logging.INFO, logger="antiphon"):
        log_mixture(plan_of(mixture), make_stream(1, **mixture))
    table, warning = caplog.messages
    assert "shares of tokens over all 12 steps" in table
    assert "asked" in table
    assert "repeated" in table
    assert "task asr has been shown max_epochs=0.2 times by step 10" in warning
    monkeypatch.setattr("ray_jobs.train_stream.TABLE_DOCUMENTS", 60)
    caplog.clear()
    with caplog.at_level(logging.INFO, logger="antiphon"):
        log_mixture(plan_of({}), make_stream(1))
    assert "over the first 2 of 12 steps" in caplog.text or "over the first 1 of 12 steps" in caplog.text


def test_a_checkpoint_of_other_data_is_refused_with_both_fingerprints_unless_forced(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = tiny_recipe(tmp_path)
    inputs = write_inputs(recipe)
    parts = load_parts(recipe, inputs)
    plan = parts.phases[0]
    before = stream_fingerprint(parts, plan)
    stream = parts.stream(plan)
    manifest = {
        "format_version": FORMAT_VERSION,
        "phase": plan.config.name,
        "fingerprint": before,
        "sampler": sampler_state(stream, 2),
    }
    checkpoint = tmp_path / "run" / "checkpoints" / "step-000002"
    storage.write_json(checkpoint / "manifest.json", manifest)
    assert not check_resumable(parts, str(checkpoint))
    resumed = parts.stream(plan)
    resume_stream(parts, resumed, str(checkpoint))
    with monkeypatch.context() as patch:
        patch.setattr(Planner, "_restart", lambda self: pytest.fail("steps before the checkpoint were planned again"))
        assert resumed.batch_hash(2) == stream.batch_hash(2)

    shard = next(Path(inputs["tokenize_speech"]).rglob("*.parquet"))
    store = TokenStore.open(inputs["tokenize_speech"])
    write_shard(str(shard), list(store.records)[:60], store.streams)
    changed = load_parts(recipe, inputs)
    after = stream_fingerprint(changed, plan)
    assert {name for name in before if before[name] != after[name]} == {"store"}
    with pytest.raises(InputError, match=rf"store \({before['store']} when it was saved, {after['store']} now\)"):
        check_resumable(changed, str(checkpoint))
    with pytest.raises(InputError, match="resume_anyway=true"):
        resume_stream(changed, changed.stream(plan), str(checkpoint))
    forced = load_parts(tiny_recipe(tmp_path, "train.resume_anyway=true"), inputs)
    assert check_resumable(forced, str(checkpoint))
    assert "although the data has changed: store" in caplog.text
    again = forced.stream(plan)
    resume_stream(forced, again, str(checkpoint))
    assert again.batch_hash(2) == forced.stream(plan).batch_hash(2)  # planned anew from what is there now


@pytest.mark.parametrize(
    ("override", "part"),
    [
        ("train.sequence_length=96", "rows"),
        ("train.over_long=split", "rows"),
        ("train.phases.0.temperature=2", "mixture"),
        ("seed=9", "seed"),
    ],
)
def test_the_fingerprint_names_what_a_recipe_changes(tmp_path: Path, override: str, part: str) -> None:
    recipe = tiny_recipe(tmp_path)
    inputs = write_inputs(recipe)
    parts, other = load_parts(recipe, inputs), load_parts(tiny_recipe(tmp_path, override), inputs)
    saved = {"phase": parts.phases[0].config.name, "fingerprint": stream_fingerprint(parts, parts.phases[0])}
    assert not changed_since(parts, saved)
    assert set(changed_since(other, saved)) == {part}
    assert not changed_since(other, {"phase": saved["phase"]})  # a checkpoint of before there were fingerprints


def test_placement_leaves_the_fingerprint_alone(tmp_path: Path) -> None:
    recipe = tiny_recipe(tmp_path)
    inputs = write_inputs(recipe)
    parts = load_parts(recipe, inputs)
    placed = load_parts(tiny_recipe(tmp_path, "train.num_workers=3", "train.loader_threads=4"), inputs)
    assert stream_fingerprint(parts, parts.phases[0]) == stream_fingerprint(placed, placed.phases[0])
