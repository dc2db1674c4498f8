"""The order of draws, and the table of a mixture."""

from dataclasses import replace

import numpy as np

from data.mixture import EpochOrder, draw_rng, format_mixture_table, mixture_table
from data.planning import PlannedDocument


def test_every_epoch_shows_each_utterance_once_in_another_order() -> None:
    order = EpochOrder(1, "asr", np.arange(50))
    epochs = [[order.next() for _ in range(50)] for _ in range(3)]
    for number, epoch in enumerate(epochs):
        assert sorted(index for index, _ in epoch) == list(range(50))
        assert {visit for _, visit in epoch} == {number}
    assert len({tuple(index for index, _ in epoch) for epoch in epochs}) == 3


def test_the_order_of_the_store_does_not_matter() -> None:
    ids = sorted(f"u{index}" for index in range(20))
    shuffled = np.random.default_rng(0).permutation(20)  # where a store holds the records of these ids
    first, second = EpochOrder(1, "asr", np.arange(20)), EpochOrder(1, "asr", shuffled)
    place = {int(row): index for index, row in enumerate(shuffled)}
    assert [ids[first.next()[0]] for _ in range(60)] == [ids[place[second.next()[0]]] for _ in range(60)]


def test_an_order_goes_on_from_any_place() -> None:
    members = np.arange(100, 130, dtype=np.int32)
    order = EpochOrder(1, "asr", members)
    drawn = [order.next() for _ in range(100)]
    for start in (0, 1, 29, 30, 31, 60, 95):
        other = EpochOrder(1, "asr", members)
        other.seek(start)
        assert [other.next() for _ in range(100 - start)] == drawn[start:]
        assert other.drawn == 100


def test_an_order_longer_than_a_block_is_a_permutation() -> None:
    order = EpochOrder(1, "asr", np.arange(10_000, dtype=np.int32))
    assert sorted(order.next()[0] for _ in range(10_000)) == list(range(10_000))
    assert order.next()[1] == 1


def test_draws_depend_on_all_four_keys_and_nothing_else() -> None:
    keys = [(1, "asr", "u", 0), (2, "asr", "u", 0), (1, "tts", "u", 0), (1, "asr", "v", 0), (1, "asr", "u", 1)]
    first = [draw_rng(*key).integers(2**62) for key in keys]
    np.random.default_rng(0).random(100)
    assert [draw_rng(*key).integers(2**62) for key in keys] == first
    assert len(set(first)) == len(keys)


def test_the_table_says_asked_got_and_repeated() -> None:
    drawn = [PlannedDocument(*each) for each in (("a", 0, 0, 30), ("a", 0, 1, 30), ("b", 4, 0, 40))]
    first, second = mixture_table({"a": 0.5, "b": 0.5}, {"a": 2, "b": 10}, drawn)
    assert (first.got, first.documents, first.repeated, first.epochs) == (0.6, 2, 1, 1.0)
    assert (second.got, second.documents, second.repeated, second.epochs) == (0.4, 1, 0, 0.1)
    assert "60.00%" in format_mixture_table([first, second])


def test_the_table_counts_samples_where_shares_are_of_samples_and_parts_of_a_split_once() -> None:
    parts = [PlannedDocument("a", 0, 0, 60, None, start) for start in (0, 59, 118)]
    table = mixture_table({"a": 0.5, "b": 0.5}, {"a": 2, "b": 1}, [*parts, PlannedDocument("b", 0, 0, 20)], "samples")
    assert [(row.got, row.documents, row.tokens, row.repeated) for row in table] == [(0.5, 1, 180, 0), (0.5, 1, 20, 0)]
    text = format_mixture_table([replace(table[0], split=1), replace(table[1], ended_at_step=7)])
    assert "split" in text
    assert "dropped" not in text
    assert text.endswith("all its epochs by step 7")
