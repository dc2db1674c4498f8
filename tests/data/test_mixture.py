"""Shares of the tokens, and the order of draws."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data.errors import InputError
from data.mixture import EpochOrder, draw_rng, format_mixture_table, mixture_table
from data.planning import PlannedDocument
from data.shares import LargestDeficit, source_weights


def test_a_groups_weight_is_split_equally_over_its_tasks() -> None:
    groups = {"asr": ["asr"], "lm": ["unit_lm", "text_lm"], "chain": ["asr", "s2s"], "unused": ["x"]}
    weights = source_weights(groups, {"asr": 0.4, "lm": 0.4, "chain": 0.2, "unused": 0.0})
    assert weights == pytest.approx({"asr": 0.5, "unit_lm": 0.2, "text_lm": 0.2, "s2s": 0.1})


def test_an_unknown_group_is_named() -> None:
    with pytest.raises(InputError, match="music"):
        source_weights({"asr": ["asr"]}, {"music": 1.0})


@settings(max_examples=50, deadline=None)
@given(
    shares=st.lists(st.floats(0.01, 1), min_size=1, max_size=6),
    lengths=st.lists(st.integers(1, 400), min_size=200, max_size=200),
)
def test_shares_are_exact_within_one_document_of_each_source(shares: list[float], lengths: list[int]) -> None:
    weights = {str(index): share / sum(shares) for index, share in enumerate(shares)}
    deficit = LargestDeficit(weights)
    for num_tokens in lengths:
        deficit.add(deficit.pick(), num_tokens)
        total = sum(deficit.tokens.values())
        for source, weight in weights.items():
            assert deficit.tokens[source] <= weight * total + max(lengths) + 1
    short = max(weight * total - deficit.tokens[source] for source, weight in weights.items())
    assert short <= max(lengths) * max(1, len(weights) - 1) + 1


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
