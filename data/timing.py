"""The only place that rounds between seconds, samples and frames. Halves round up, everywhere alike."""

import math

# Products such as 0.58 * 25 fall a hair below the half they mean.
_SLACK = 1e-9


def round_half_up(value: float) -> int:
    """The nearest integer; halves go up (Python's own round goes to even numbers)."""
    return math.floor(value + 0.5 + _SLACK)


def seconds_to_samples(time_s: float, sample_rate: int) -> int:
    """The sample nearest to `time_s`."""
    return round_half_up(time_s * sample_rate)


def written_seconds(time_s: float) -> float:
    """A time as manifests state it: to a tenth of a millisecond."""
    return round(time_s, 4)


def samples_to_seconds(num_samples: int, sample_rate: int) -> float:
    """Duration of `num_samples` in seconds."""
    return num_samples / sample_rate


def seconds_to_frames(time_s: float, frame_rate_hz: float) -> int:
    """The frame boundary nearest to `time_s`."""
    return round_half_up(time_s * frame_rate_hz)


def frames_to_seconds(num_frames: int, frame_rate_hz: float) -> float:
    """Duration of `num_frames` in seconds."""
    return num_frames / frame_rate_hz


def samples_to_frames(num_samples: int, sample_rate: int, frame_rate_hz: float) -> int:
    """How many frames a clip has: the nearest number, at least 1 for any sound and 0 for none."""
    if num_samples <= 0:
        return 0
    return max(1, round_half_up(num_samples * frame_rate_hz / sample_rate))


def frame_span(start_s: float, end_s: float, frame_rate_hz: float, num_frames: int) -> tuple[int, int]:
    """Frames [start, end) of a time span, inside a clip of `num_frames` and never empty unless the clip is."""
    if num_frames <= 0:
        return 0, 0
    start = min(max(seconds_to_frames(start_s, frame_rate_hz), 0), num_frames - 1)
    end = min(max(seconds_to_frames(end_s, frame_rate_hz), start + 1), num_frames)
    return start, end
