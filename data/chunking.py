"""Overlapping chunks of a long recording, by frames: which frames are computed together, and which of them are kept."""

from dataclasses import dataclass
from itertools import pairwise


@dataclass(frozen=True)
class Chunk:
    """Frames [start, end) are computed, [keep_start, keep_end) of them are kept; all count from the recording."""

    start: int
    end: int
    keep_start: int
    keep_end: int


def plan_chunks(num_frames: int, chunk_frames: int, overlap_frames: int) -> list[Chunk]:
    """Chunks of `chunk_frames` that overlap by `overlap_frames`; each frame is kept once, in the chunk whose centre is
    nearest (the earlier one where two are as near).

    The last chunk is as long as the others and overlaps more, so that no frame is computed with little around it.
    Raises ValueError unless 0 <= overlap_frames < chunk_frames.
    """
    if not 0 <= overlap_frames < chunk_frames:
        raise ValueError(f"overlap_frames is {overlap_frames}, expected 0 to {chunk_frames - 1}")
    if num_frames <= chunk_frames:
        return [Chunk(0, num_frames, 0, num_frames)] if num_frames else []
    step = chunk_frames - overlap_frames
    starts = [*range(0, num_frames - chunk_frames, step), num_frames - chunk_frames]
    # Centres of neighbours lie at start + chunk / 2; frame t at t + 1/2. The border is where both are as far.
    borders = [0, *((a + b + chunk_frames + 1) // 2 for a, b in pairwise(starts)), num_frames]
    return [
        Chunk(start, start + chunk_frames, keep_start, keep_end)
        for start, (keep_start, keep_end) in zip(starts, pairwise(borders), strict=True)
    ]
