"""Chunks: every frame is kept once, in the chunk whose centre is nearest."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from data.chunking import plan_chunks


@given(st.integers(0, 400), st.integers(1, 60), st.data())
def test_each_frame_is_kept_in_the_nearest_chunk(num_frames, chunk_frames, data):
    overlap = data.draw(st.integers(0, chunk_frames - 1))
    chunks = plan_chunks(num_frames, chunk_frames, overlap)
    kept = [frame for chunk in chunks for frame in range(chunk.keep_start, chunk.keep_end)]
    assert kept == list(range(num_frames))
    assert all(chunk.end - chunk.start == min(chunk_frames, num_frames) for chunk in chunks)
    for chunk in chunks:
        for frame in range(chunk.keep_start, chunk.keep_end):
            assert chunk.start <= frame < chunk.end
            distances = [abs(2 * frame + 1 - other.start - other.end) for other in chunks]
            assert abs(2 * frame + 1 - chunk.start - chunk.end) == min(distances)


def test_neighbours_overlap_as_asked():
    chunks = plan_chunks(250, 100, 20)
    assert [(chunk.start, chunk.end) for chunk in chunks] == [(0, 100), (80, 180), (150, 250)]
    assert [chunk.keep_start for chunk in chunks] == [0, 90, 165]


def test_an_overlap_of_a_whole_chunk_is_refused():
    with pytest.raises(ValueError, match="overlap_frames is 5, expected 0 to 4"):
        plan_chunks(10, 5, 5)
