"""Plans of steps: caps of epochs, schedules, over-long documents, waste, and going on from a state."""

import json
from collections import Counter
from collections.abc import Sequence
from itertools import count

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data.config import PhaseMixture
from data.errors import InputError
from data.mixture import format_mixture_table
from data.planning import PlannedDocument, Planner, split_document
from data.shares import ShareSchedule

GROUPS = {"a": ("a",), "b": ("b",), "c": ("c",)}
LENGTHS = np.random.default_rng(3).integers(4, 60, size=200)


def planner(
    lengths: Sequence[int] | np.ndarray = LENGTHS,
    row_tokens: int = 128,
    rows: int = 4,
    over_long: str = "drop",
    splittable: frozenset[str] = frozenset(),
    **changes,
) -> Planner:
    phase = PhaseMixture(**{"name": "p", "weights": {"a": 0.6, "b": 0.4}, **changes})
    shares = ShareSchedule(GROUPS, phase)
    members = {source: np.arange(len(lengths), dtype=np.int32) for source in shares.sources}

    def measure(source: str, index: int, visit: int, step: int) -> tuple[int, None]:
        return int(lengths[index]), None

    return Planner(phase, shares, members, measure, row_tokens, rows, 7, over_long, splittable)


def shown(plans: Planner, steps: int) -> list[PlannedDocument]:
    return [document for step in range(steps) for row in plans.plan(step) for document in row]


@settings(max_examples=25, deadline=None)
@given(
    st.integers(0, 60),
    st.sampled_from(
        [
            {},
            {"unit": "samples"},
            {"picks": "largest_deficit"},
            {"max_epochs": {"a": 1.5}},
            {"weight_schedule": [{"step": 20, "weights": {"c": 1.0}}, {"step": 40, "weights": {"a": 1.0}}]},
            {"over_long": "split", "splittable": frozenset({"a"}), "row_tokens": 48},
            {"over_long": "drop", "row_tokens": 48},
        ]
    ),
)
def test_a_plan_resumed_from_its_state_is_the_plan(step: int, changes: dict) -> None:
    whole = planner(**changes)
    expected = [whole.plan(number) for number in range(70)]
    state = json.loads(json.dumps(whole.state(step) if step > 5 else planner(**changes).state(step)))
    resumed = planner(**changes)
    resumed.resume(state)
    assert [resumed.plan(number) for number in range(step, 70)] == expected[step:]
    assert resumed.state(69) == whole.state(69)
    if step:
        assert resumed.plan(step - 1) == expected[step - 1]  # an earlier one is planned from the start


def test_a_state_does_not_grow_with_the_records_or_the_steps() -> None:
    plans = planner()
    sizes = [len(json.dumps(plans.state(step))) for step in (10, 500)]
    assert sizes[1] < 1.5 * sizes[0]


def test_a_source_stops_at_its_cap_and_its_share_goes_to_the_others() -> None:
    plans = planner(weights={"a": 0.6, "b": 0.2, "c": 0.2}, max_epochs={"a": 1.5})
    documents = shown(plans, 80)
    visits = Counter((document.source, document.record) for document in documents)
    assert sum(count for (source, _), count in visits.items() if source == "a") == 300  # 1.5 epochs of 200 records
    assert {count for (source, _), count in visits.items() if source == "a"} == {1, 2}
    end = plans.ended["a"]
    assert 10 < end < 80
    late = Counter()
    for document in [document for step in range(end + 4, 80) for row in plans.plan(step) for document in row]:
        late[document.source] += document.num_tokens
    assert late["a"] == 0
    assert late["b"] / late.total() == pytest.approx(0.5, abs=0.02)
    table = planner(weights={"a": 0.6, "b": 0.2, "c": 0.2}, max_epochs={"a": 1.5}).mixture_table(80)
    row = next(row for row in table if row.source == "a")
    assert (row.asked, row.documents, row.repeated, row.epochs) == (0.6, 300, 100, 1.5)
    assert row.got < 0.5
    assert row.ended_at_step == end
    assert f"all its epochs by step {end}" in format_mixture_table(table)


def test_when_nothing_is_left_the_last_rows_are_shown_and_then_it_is_an_error() -> None:
    plans = planner(weights={"a": 1.0}, max_epochs={"a": 1})
    documents: list[PlannedDocument] = []

    def show_all() -> None:
        for step in count():
            documents.extend(document for row in plans.plan(step) for document in row)

    with pytest.raises(InputError, match=r"phase 'p' has nothing left .* max_epochs"):
        show_all()
    assert Counter(document.record for document in documents) == dict.fromkeys(range(200), 1)


def test_a_cap_of_a_task_whose_weight_is_zero_is_no_error() -> None:
    weights = {"a": 0.6, "b": 0.4, "c": 0.0}
    assert shown(planner(weights=weights, max_epochs={"c": 1.0}), 5) == shown(planner(), 5)


def test_samples_are_shared_out_whatever_their_lengths() -> None:
    lengths = [10] * 100 + [60] * 100
    phase = {"weights": {"a": 0.75, "b": 0.25}, "unit": "samples"}
    table = planner(lengths, **phase).mixture_table(150)
    assert [row.got for row in table] == pytest.approx([0.75, 0.25], abs=0.005)


def test_a_schedule_moves_what_is_got() -> None:
    points = [{"step": 100, "weights": {"b": 1.0}}]
    plans = planner(weights={"a": 1.0}, weight_schedule=points)

    def share_of_b(steps: range) -> float:
        tokens = Counter()
        for document in [document for step in steps for row in plans.plan(step) for document in row]:
            tokens[document.source] += document.num_tokens
        return tokens["b"] / tokens.total()

    assert share_of_b(range(10)) == pytest.approx(0.05, abs=0.04)
    assert share_of_b(range(45, 55)) == pytest.approx(0.5, abs=0.06)
    assert share_of_b(range(105, 120)) == 1.0
    table = planner(weights={"a": 1.0}, weight_schedule=points).mixture_table(100)
    assert [row.asked for row in table] == pytest.approx([0.505, 0.495])
    assert [row.got for row in table] == pytest.approx([0.505, 0.495], abs=0.03)


LONG = [20, 300, 40, 50]  # tokens; one of four fits no row of 128


def test_over_long_documents_are_dropped_and_counted() -> None:
    plans = planner(LONG)
    assert 1 not in {document.record for document in shown(plans, 30)}
    assert all(row for step in range(30) for row in plans.plan(step))  # AnyGPT's packing leaves rows empty for them
    assert plans.num_dropped == {"a": 1, "b": 1}
    assert [(row.dropped, row.split) for row in plans.mixture_table(30)] == [(1, 0), (1, 0)]


def test_over_long_documents_are_split_where_parts_stand_for_themselves_and_dropped_elsewhere() -> None:
    plans = planner(LONG, over_long="split", splittable=frozenset({"b"}))
    documents = shown(plans, 30)
    parts = Counter((d.source, d.start, d.num_tokens) for d in documents if d.record == 1)
    assert set(parts) == {("b", 0, 128), ("b", 127, 128), ("b", 254, 46)}
    table = plans.mixture_table(30)
    assert [(row.dropped, row.split) for row in table] == [(1, 0), (0, 1)]
    assert [row.got for row in table] == pytest.approx([0.6, 0.4], abs=0.02)
    assert "split" in format_mixture_table(table)


def test_an_over_long_document_is_an_error_where_that_was_asked() -> None:
    with pytest.raises(InputError, match=r"300 tokens, train.sequence_length is 128 and train.over_long"):
        planner(LONG, over_long="error").plan(0)


def test_records_that_are_too_long_at_some_visits_are_shown_at_the_others() -> None:
    plans = planner([40] * 5)
    plans._measure = lambda source, index, visit, step: (300 if (visit + index) % 3 == 0 else 40, None)
    visits = {(document.record, document.visit) for document in shown(plans, 20)}
    assert max(visit for _, visit in visits) > 5
    assert not any((visit + index) % 3 == 0 for index, visit in visits)
    assert plans.num_dropped == {"a": 5, "b": 5}


@pytest.mark.parametrize("changes", [{}, {"max_epochs": {"a": 1}}])
def test_a_task_of_which_nothing_fits_is_an_error_with_a_cap_and_without(changes: dict) -> None:
    with pytest.raises(InputError, match="task 'a': none of its 4 records fits"):
        planner([300] * 4, weights={"a": 1.0}, **changes).plan(0)


@given(st.integers(129, 2000), st.integers(2, 128))
def test_every_target_of_a_split_document_is_a_target_of_one_part(num_tokens: int, max_tokens: int) -> None:
    parts = split_document(PlannedDocument("a", 0, 0, num_tokens), max_tokens)
    targets = [part.start + place for part in parts for place in range(1, part.num_tokens)]
    assert targets == list(range(1, num_tokens))
    assert all(2 <= part.num_tokens <= max_tokens for part in parts)


@pytest.mark.parametrize("rows", [4, 32])
def test_utterances_of_usual_lengths_waste_less_than_a_hundredth_of_rows_of_2048(rows: int) -> None:
    rng = np.random.default_rng(0)
    lengths = (np.clip(rng.lognormal(np.log(6), 0.7, 4000), 1, 30) * 25).astype(int) + 2  # s at 25 Hz, two markers
    steps = 1600 // rows
    plans = planner(lengths, 2048, rows, weights={"a": 1.0})
    used = sum(document.num_tokens for document in shown(plans, steps))
    assert 1 - used / (steps * rows * 2048) <= 0.01
