"""Batches of similar length, the same whoever decodes, and decoding that stays within its bound."""

import threading
from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from data.audio import AudioError
from data.manifest import Utterance
from ray_jobs.tokenize_batches import ASSUMED_S, batches, decoded_ahead, encoding_order

BUDGET_S = 10.0


@dataclass(frozen=True)
class Item:
    utterance: Utterance
    seconds: float


def utterance(number: int, duration: float | None = 1.0, kind: str = "speech") -> Utterance:
    return Utterance(f"u{number:03d}", f"{number}.wav", duration, kind=kind)


LENGTHS = st.lists(
    st.tuples(st.floats(0.01, 30), st.booleans(), st.sampled_from(["speech", "music"])), min_size=1, max_size=40
)


def batches_of(lengths) -> list[list[Item]]:
    """Batches of utterances of such lengths; the manifest does not name those that are marked."""
    items = {
        f"u{i:03d}": Item(utterance(i, None if unknown else seconds, kind), seconds)
        for i, (seconds, unknown, kind) in enumerate(lengths)
    }
    ordered = encoding_order([item.utterance for item in items.values()])
    return list(batches(iter([items[one.id] for one in ordered]), BUDGET_S))


@given(lengths=LENGTHS)
def test_every_utterance_is_in_one_batch_of_its_kind_within_the_budget(lengths):
    found = batches_of(lengths)
    assert sorted(item.utterance.id for batch in found for item in batch) == [f"u{i:03d}" for i in range(len(lengths))]
    for batch in found:
        assert len({item.utterance.kind for item in batch}) == 1
        assert len(batch) == 1 or len(batch) * max(item.seconds for item in batch) <= BUDGET_S * (1 + 1e-9)


@given(lengths=LENGTHS)
def test_batches_of_known_lengths_go_from_long_to_short_and_none_could_be_larger(lengths):
    found = batches_of([(seconds, False, "speech") for seconds, _, _ in lengths])
    flat = [item.seconds for batch in found for item in batch]
    assert flat == sorted(flat, reverse=True)
    for batch in found[:-1]:
        assert (len(batch) + 1) * batch[0].seconds > BUDGET_S


def test_ties_go_by_id_and_not_by_the_order_of_the_rows():
    rows = [utterance(i) for i in (4, 2, 3, 0, 1)]
    assert [one.id for one in encoding_order(rows)] == [f"u{i:03d}" for i in range(5)]


def test_unknown_lengths_are_sorted_within_a_window():
    found = batches_of([(1.0 if i % 2 else 5.0, True, "speech") for i in range(12)])
    assert [len(batch) for batch in found] == [2, 2, 2, 6]


def test_decoding_keeps_the_order_and_never_holds_more_than_its_bound():
    lock, running = threading.Lock(), {"now": 0, "most": 0, "begun": 0}

    def decode(one: Utterance) -> str:
        with lock:
            running["begun"] += 1
            running["now"] += 1
            running["most"] = max(running["most"], running["now"])
        with lock:
            running["now"] -= 1
        return one.id

    taken, most_ahead = [], 0
    for name in decoded_ahead([utterance(i, 2.0) for i in range(50)], decode, 3, 10.0):
        taken.append(name)
        most_ahead = max(most_ahead, running["begun"] - len(taken))
    assert taken == [f"u{i:03d}" for i in range(50)]
    assert most_ahead <= 10.0 / 2.0
    assert running["most"] <= 3


def test_decoding_runs_while_the_encoder_does():
    decoded = threading.Event()

    def decode(one: Utterance) -> str:
        if one.id == "u001":
            decoded.set()
        return one.id

    ahead = decoded_ahead([utterance(0), utterance(1)], decode, 1, 10.0)
    assert next(ahead) == "u000"
    assert decoded.wait(10), "the second was not decoded while the first was in use"
    ahead.close()


def test_an_utterance_of_unknown_length_counts_as_thirty_seconds():
    begun = []
    ahead = decoded_ahead([utterance(i, None) for i in range(9)], lambda one: begun.append(one.id), 1, 2 * ASSUMED_S)
    next(ahead)
    ahead.close()
    assert len(begun) <= 2


def test_bad_audio_is_a_quarantine_row_and_a_bug_an_error_that_leaves_no_thread():
    def decode(one: Utterance) -> str:
        if one.id == "u001":
            raise AudioError("nan", "not a number")
        if one.id == "u003":
            raise ZeroDivisionError
        return one.id

    ahead = decoded_ahead([utterance(i) for i in range(5)], decode, 2, 10.0)
    row = {"id": "u001", "audio_filepath": "1.wav", "reason": "nan", "detail": "not a number"}
    assert [next(ahead) for _ in range(3)] == ["u000", row, "u002"]
    with pytest.raises(ZeroDivisionError):
        next(ahead)
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("decode")]
