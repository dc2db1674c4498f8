import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from model import ctc_alignment
from model.ctc_alignment import AlignmentError, align_tokens

BLANK = 0


def collapse(path: tuple[int, ...]) -> list[int]:
    return [token for token, _ in itertools.groupby(path) if token != BLANK]


def score(log_probs_TV: np.ndarray, path: tuple[int, ...]) -> float:
    return float(sum(log_probs_TV[frame, token] for frame, token in enumerate(path)))


def path_of(spans_L2: np.ndarray, tokens: list[int], num_frames: int) -> tuple[int, ...]:
    path = [BLANK] * num_frames
    for token, (start, end) in zip(tokens, spans_L2.tolist(), strict=True):
        path[start:end] = [token] * (end - start)
    return tuple(path)


def log_probs(seed: int, num_frames: int, num_tokens: int) -> np.ndarray:
    logits_TV = np.random.default_rng(seed).normal(0, 2, (num_frames, num_tokens))
    return logits_TV - np.log(np.exp(logits_TV).sum(1, keepdims=True))


@settings(max_examples=150, deadline=None)
@given(st.integers(0, 2**32), st.integers(1, 6), st.lists(st.integers(1, 2), min_size=1, max_size=4), st.booleans())
def test_the_best_of_all_paths_is_found(seed: int, num_frames: int, tokens: list[int], small_blocks: bool) -> None:
    log_probs_TV = log_probs(seed, num_frames, 3)
    fitting = [path for path in itertools.product(range(3), repeat=num_frames) if collapse(path) == tokens]
    before = ctc_alignment._MAX_POINTERS
    ctc_alignment._MAX_POINTERS = 2 * (2 * len(tokens) + 1) if small_blocks else before
    try:
        if not fitting:
            with pytest.raises(AlignmentError, match="too short"):
                align_tokens(log_probs_TV, np.array(tokens), BLANK)
            return
        spans_L2 = align_tokens(log_probs_TV, np.array(tokens), BLANK)
    finally:
        ctc_alignment._MAX_POINTERS = before
    path = path_of(spans_L2, tokens, num_frames)
    assert collapse(path) == tokens
    assert score(log_probs_TV, path) == pytest.approx(max(score(log_probs_TV, other) for other in fitting))


def test_a_known_alignment_comes_back_with_its_repeats() -> None:
    path = [0, 0, 3, 3, 0, 3, 1, 1, 1, 2, 0, 0]
    log_probs_TV = np.log(np.full((len(path), 4), 0.02) + 0.92 * np.eye(4)[path])
    spans_L2 = align_tokens(log_probs_TV, np.array([3, 3, 1, 2]), BLANK)
    assert spans_L2.tolist() == [[2, 4], [5, 6], [6, 9], [9, 10]]


def test_the_blank_may_be_any_token() -> None:
    path = [4, 1, 4, 0, 0, 4]
    log_probs_TV = np.log(np.full((len(path), 5), 0.02) + 0.9 * np.eye(5)[path])
    assert align_tokens(log_probs_TV, np.array([1, 0]), 4).tolist() == [[1, 2], [3, 5]]


def test_blocks_change_nothing_in_a_long_alignment(monkeypatch: pytest.MonkeyPatch) -> None:
    log_probs_TV = log_probs(3, 700, 9)
    tokens_L = np.random.default_rng(4).integers(1, 9, 150)
    whole_L2 = align_tokens(log_probs_TV, tokens_L, BLANK)
    monkeypatch.setattr(ctc_alignment, "_MAX_POINTERS", 37 * 301)
    np.testing.assert_array_equal(align_tokens(log_probs_TV, tokens_L, BLANK), whole_L2)


def test_no_tokens_no_spans_and_no_probability_no_path() -> None:
    assert align_tokens(log_probs(0, 5, 3), np.array([], int), BLANK).shape == (0, 2)
    impossible_TV = np.zeros((4, 3))
    impossible_TV[:, 1] = -np.inf
    with pytest.raises(AlignmentError, match="zero"):
        align_tokens(impossible_TV, np.array([1]), BLANK)
