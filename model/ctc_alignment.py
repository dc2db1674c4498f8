"""CTC forced alignment: the most probable path of a token sequence through a model's frames (Graves et al. 2006,
with Viterbi's maximum in place of the sum).

Shapes: T frames, V vocabulary, L tokens, S = 2 L + 1 states (blank, token, blank, …, token, blank), B frames a block.
"""

import numpy as np

_MAX_POINTERS = 1 << 26  # one byte each


class AlignmentError(ValueError):
    """A text and a recording that cannot be aligned; the message says why."""


def align_tokens(log_probs_TV: np.ndarray, tokens_L: np.ndarray, blank: int) -> np.ndarray:
    """Frames [start, end) of each token, (L, 2), on the best path; blanks between tokens belong to none.

    O(T L) time. Memory is bounded: back pointers are kept for one block of frames, and blocks before it are computed
    again from the scores at their beginnings. Raises AlignmentError where the audio has too few frames for the
    tokens (equal neighbours need a blank between them) or gives every path a probability of zero.
    """
    tokens_L = np.asarray(tokens_L, dtype=np.int64)
    num_frames, num_tokens = len(log_probs_TV), len(tokens_L)
    if not num_tokens:
        return np.zeros((0, 2), np.int64)
    needed = num_tokens + int((tokens_L[1:] == tokens_L[:-1]).sum())
    if num_frames < needed:
        raise AlignmentError(f"{num_frames} frames are too short for {num_tokens} tokens, which need {needed}")
    labels_S = np.full(2 * num_tokens + 1, blank, np.int64)
    labels_S[1::2] = tokens_L
    states_T = _best_states(log_probs_TV, labels_S, blank)
    spans_L2 = np.empty((num_tokens, 2), np.int64)
    odd_states = 2 * np.arange(num_tokens) + 1
    spans_L2[:, 0] = np.searchsorted(states_T, odd_states, side="left")
    spans_L2[:, 1] = np.searchsorted(states_T, odd_states, side="right")
    return spans_L2


def _best_states(log_probs_TV: np.ndarray, labels_S: np.ndarray, blank: int) -> np.ndarray:
    """The state of each frame (T,), never falling."""
    num_frames, num_states = len(log_probs_TV), len(labels_S)
    may_skip_S = np.zeros(num_states, bool)  # a blank between two different tokens may be left out
    may_skip_S[2:] = (labels_S[2:] != blank) & (labels_S[2:] != labels_S[:-2])
    block = max(1, min(num_frames, _MAX_POINTERS // num_states))
    starts = range(0, num_frames, block)
    before_S = np.full(num_states, -np.inf)
    before_S[0] = 0.0  # before frame 0; steps of 0 and 1 lead to the two states that a path may begin in
    entries = [before_S]
    for start in starts[:-1]:
        before_S, _ = _advance(log_probs_TV[start : start + block], labels_S, may_skip_S, before_S, start == 0, False)
        entries.append(before_S)
    states_T = np.empty(num_frames, np.int64)
    state = -1
    for start, entry_S in zip(reversed(starts), reversed(entries), strict=True):
        frames_BV = log_probs_TV[start : start + block]
        after_S, steps_BS = _advance(frames_BV, labels_S, may_skip_S, entry_S, start == 0, True)
        if state < 0:
            state = num_states - 1 if after_S[-1] > after_S[-2] else num_states - 2
            if not after_S[state] > -np.inf:
                raise AlignmentError("every path has a probability of zero")
        for frame in range(len(frames_BV) - 1, -1, -1):
            states_T[start + frame] = state
            state -= int(steps_BS[frame, state])
    return states_T


def _advance(
    log_probs_BV: np.ndarray,
    labels_S: np.ndarray,
    may_skip_S: np.ndarray,
    scores_S: np.ndarray,
    first: bool,
    keep_steps: bool,
) -> tuple[np.ndarray, np.ndarray]:
    """Best scores (S,) after a block, and by how many states each frame's best path came from (B, S) if kept."""
    steps_BS = np.zeros((len(log_probs_BV) if keep_steps else 0, len(labels_S)), np.int8)
    one_S = np.full(len(labels_S), -np.inf)
    two_S = np.full(len(labels_S), -np.inf)
    for frame, log_probs_V in enumerate(log_probs_BV):
        one_S[1:] = scores_S[:-1]
        two_S[2:] = np.where(may_skip_S[2:], scores_S[:-2], -np.inf)
        if first and frame == 0:
            two_S[:] = -np.inf
        best_S = np.maximum(scores_S, one_S)
        if keep_steps:
            steps_BS[frame] = one_S > scores_S
            steps_BS[frame][two_S > best_S] = 2
        scores_S = np.maximum(best_S, two_S) + log_probs_V[labels_S]
    return scores_S, steps_BS
