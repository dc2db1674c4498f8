"""Where to cut a long recording: from probabilities of speech to segments, and from segments to utterances.

Shapes: W windows of a voice activity detector.
"""

from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np

from data.corpus.steps_config import VadSegmentation
from data.manifest import Utterance, Word
from data.timing import frames_to_seconds, seconds_to_frames, written_seconds

_HYSTERESIS = 0.15  # speech goes on until the probability is this far below the threshold

Windows = tuple[int, int]
Segment = tuple[float, float]


def segments(
    probabilities_W: np.ndarray, window_rate_hz: float, duration_s: float, config: VadSegmentation
) -> list[Segment]:
    """[start_s, end_s) of each segment, in order, without overlap, at most `config.max_s` long; none without speech.

    Speech longer than that is cut where the detector is least sure of it. A function of its arguments alone.
    """
    longest = int((config.max_s - 2 * config.pad_s) * window_rate_hz)  # pads fit on top, whatever is joined
    pieces = [
        piece
        for span in _speech(probabilities_W, window_rate_hz, config)
        for piece in _cut_long(span, probabilities_W, longest)
    ]
    joined = _join(pieces, seconds_to_frames(config.join_pause_s, window_rate_hz), longest)
    spans_s = [(frames_to_seconds(a, window_rate_hz), frames_to_seconds(b, window_rate_hz)) for a, b in joined]
    return _pad(spans_s, config.pad_s, duration_s)


def cut(parent: Utterance, spans_s: Sequence[Segment]) -> list[Utterance]:
    """One utterance per segment: id `PARENT-000000`, offset into the parent's file, `parent` among the fields.

    A word belongs to the segment in which its middle lies. A segment's text is that of its words; without word times
    it has none, for nobody knows which part of the parent's text is spoken in it.
    """
    children = []
    for index, (start_s, end_s) in enumerate(spans_s):
        words = tuple(_words_within(parent.words or (), start_s, end_s))
        child = replace(
            parent,
            id=f"{parent.id}-{index:06d}",
            offset=written_seconds(parent.offset + start_s),
            duration=written_seconds(end_s - start_s),
            text=" ".join(word for word, _, _ in words) or None,
            words=words or None,
            extra={**parent.extra, "parent": parent.id},
        )
        children.append(child.as_part_of_file())
    return children


def _speech(probabilities_W: np.ndarray, rate_hz: float, config: VadSegmentation) -> Iterator[Windows]:
    """Runs of windows that hold speech: from the threshold until a pause below it."""
    pause = max(1, seconds_to_frames(config.min_pause_s, rate_hz))
    shortest = seconds_to_frames(config.min_speech_s, rate_hz)
    start, end = -1, 0
    for window, probability in enumerate([*probabilities_W.tolist(), *[0.0] * pause]):
        if probability >= config.threshold or (start >= 0 and probability >= config.threshold - _HYSTERESIS):
            start = window if start < 0 else start
            end = window + 1
        elif start >= 0 and window + 1 - end >= pause:
            if end - start >= shortest:
                yield start, end
            start = -1


def _cut_long(span: Windows, probabilities_W: np.ndarray, longest: int) -> Iterator[Windows]:
    start, end = span
    while end - start > longest:
        # Neither piece gets shorter than half of what may be, but for the last.
        middle = start + max(1, longest // 2)
        cut_at = middle + int(np.argmin(probabilities_W[middle : start + longest]))
        yield start, cut_at
        start = cut_at
    yield start, end


def _join(pieces: Sequence[Windows], pause: int, longest: int) -> list[Windows]:
    joined: list[Windows] = []
    for start, end in pieces:
        if joined and start - joined[-1][1] <= pause and end - joined[-1][0] <= longest:
            joined[-1] = (joined[-1][0], end)
        else:
            joined.append((start, end))
    return joined


def _pad(spans_s: Sequence[Segment], pad_s: float, duration_s: float) -> list[Segment]:
    """Up to `pad_s` more on both sides, but no more than half of the pause between two segments."""
    padded = []
    for index, (start_s, end_s) in enumerate(spans_s):
        before_s = (spans_s[index - 1][1] + start_s) / 2 if index else 0.0
        after_s = (end_s + spans_s[index + 1][0]) / 2 if index + 1 < len(spans_s) else duration_s
        padded.append((max(start_s - pad_s, before_s), min(end_s + pad_s, after_s)))
    return padded


def _words_within(words: Sequence[Word], start_s: float, end_s: float) -> Iterator[Word]:
    """The words whose middle lies in the segment, in its own time."""
    length_s = end_s - start_s
    for word, word_start_s, word_end_s in words:
        if start_s <= (word_start_s + word_end_s) / 2 < end_s:
            own_start_s, own_end_s = max(word_start_s - start_s, 0.0), min(word_end_s - start_s, length_s)
            yield word, written_seconds(own_start_s), written_seconds(own_end_s)
