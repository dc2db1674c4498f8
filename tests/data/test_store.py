"""The token store gives back what was written, with responses linked."""

import time

import numpy as np
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data.errors import InputError
from data.store import ROW_GROUP_ROWS, Record, StreamInfo, TokenStore, write_shard

UNIT = StreamInfo(25.0, 1, 200, "abc")
MUSIC = StreamInfo(25.0, 4, 256, "def")


def codes(*values: int) -> np.ndarray:
    return np.array(values, dtype=np.int16)


def same(left: Record, right: Record) -> bool:
    def plain(record: Record) -> tuple:
        arrays = [{k: v.tolist() for k, v in part.items()} for part in (record.streams, record.durations)]
        return (record.id, record.text, record.speaker, record.lang, record.duration_s, record.caption, record.kind,
                record.split, record.words, record.extra, arrays)  # fmt: skip

    return plain(left) == plain(right)


def test_records_come_back_as_they_were_written(tmp_path):
    records = [
        Record("a", "one two", "en-US", "en", 0.5, words=(("one", 0.0, 0.2), ("two", 0.2, 0.5)),
               extra={"part": "digits", "take": 3}, streams={"unit": codes(1, 2, 3)}),
        Record("b", caption="fast piano", kind="music", split="test", streams={"music": codes(*range(8))}),
        Record("c", words=(), streams={"unit": codes()}),
    ]  # fmt: skip
    write_shard(str(tmp_path / "shards/part-00000.parquet"), records, {"unit": UNIT, "music": MUSIC})
    store = TokenStore.open(str(tmp_path))
    assert len(store) == 3
    assert store.streams == {"unit": UNIT, "music": MUSIC}
    assert all(same(a, b) for a, b in zip(records, store.records, strict=True))
    assert "music" not in store.records[0].streams
    assert store.records[0].streams["unit"].dtype == np.int16


def test_durations_of_deduplicated_streams_are_kept(tmp_path):
    record = Record("a", streams={"unit": codes(1, 2)}, durations={"unit": codes(3, 1)})
    write_shard(str(tmp_path / "part-0.parquet"), [record, Record("b")], {"unit": UNIT})
    first, second = TokenStore.open(str(tmp_path)).records
    assert first.durations["unit"].tolist() == [3, 1]
    assert second.durations == {}


def test_a_question_is_linked_to_its_answer_in_another_shard(tmp_path):
    write_shard(str(tmp_path / "part-0.parquet"), [Record("q", extra={"response": "a"})], {})
    write_shard(str(tmp_path / "part-1.parquet"), [Record("a"), Record("x", extra={"response": "gone"})], {})
    question, answer, orphan = TokenStore.open(str(tmp_path)).records
    assert question.response is answer
    assert answer.response is None
    assert orphan.response is None


def test_a_field_of_the_users_that_is_called_like_a_link_is_kept_as_it_is(tmp_path):
    extra = {"response": ["yes", "no"], "rejected": {"text": "no"}}
    write_shard(str(tmp_path / "part-0.parquet"), [Record("q", extra=extra), Record("a")], {})
    record = TokenStore.open(str(tmp_path)).records[0]
    assert (record.extra, record.response, record.rejected) == (extra, None, None)


@settings(max_examples=30, deadline=None)
@given(
    rows=st.lists(
        st.tuples(
            st.none() | st.text(st.characters(exclude_categories=("Cs",))),
            st.none() | st.lists(st.integers(0, 32767)),
            st.none() | st.lists(st.tuples(st.text("ab"), st.floats(0, 9), st.floats(0, 9))),
        ),
        max_size=6,
    )
)
def test_any_row_survives_the_round_trip(rows, tmp_path_factory):
    records = [
        Record(str(i), text, words=None if words is None else tuple(words),
               streams={} if unit is None else {"unit": codes(*unit)})
        for i, (text, unit, words) in enumerate(rows)
    ]  # fmt: skip
    folder = str(tmp_path_factory.mktemp("store"))
    write_shard(folder + "/part.parquet", records, {"unit": UNIT})
    assert all(same(a, b) for a, b in zip(records, TokenStore.open(folder).records, strict=True))


def test_the_same_rows_give_the_same_bytes(tmp_path):
    rows = [Record("a", "x", extra={"b": 1, "a": 2}, streams={"unit": codes(5)})]
    for name in ("one", "two"):
        write_shard(str(tmp_path / name), rows, {"unit": UNIT})
    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()


def test_a_large_shard_has_bounded_row_groups_and_its_durations_in_all_of_them(tmp_path):
    rows = [Record(str(i), streams={"unit": codes(i % 7)}) for i in range(2 * ROW_GROUP_ROWS + 5)]
    rows[-1] = Record("last", streams={"unit": codes(3)}, durations={"unit": codes(9)})
    write_shard(str(tmp_path / "part.parquet"), rows, {"unit": UNIT})
    file = pq.ParquetFile(tmp_path / "part.parquet")
    sizes = [file.metadata.row_group(i).num_rows for i in range(file.num_row_groups)]
    assert sizes == [ROW_GROUP_ROWS, ROW_GROUP_ROWS, 5]
    records = TokenStore.open(str(tmp_path)).records
    assert all(same(a, b) for a, b in zip(rows, records, strict=True))
    assert records[-1].durations["unit"].tolist() == [9]


def test_a_shard_that_cannot_be_written_leaves_nothing_behind(tmp_path):
    with pytest.raises(TypeError):
        write_shard(str(tmp_path / "part.parquet"), [Record("a", extra={"b": object()})], {})
    assert list(tmp_path.iterdir()) == []


def test_an_empty_folder_and_disagreeing_shards_are_input_errors(tmp_path):
    with pytest.raises(InputError, match="no Parquet shard"):
        TokenStore.open(str(tmp_path))
    write_shard(str(tmp_path / "part-0.parquet"), [Record("a")], {"unit": UNIT})
    write_shard(str(tmp_path / "part-1.parquet"), [Record("b")], {"music": MUSIC})
    with pytest.raises(InputError, match="same tokenizers"):
        TokenStore.open(str(tmp_path))


def test_a_stream_without_metadata_is_refused(tmp_path):
    with pytest.raises(ValueError, match="no metadata"):
        write_shard(str(tmp_path / "part.parquet"), [Record("a", streams={"pitch": codes(1)})], {"unit": UNIT})


def test_six_thousand_records_open_within_a_second(tmp_path):
    row = Record("a", "one two three", "v", "en", 2.4, words=(("one", 0.0, 0.2),) * 8, extra={"part": "digits"},
                 streams={"unit": np.arange(60, dtype=np.int16)})  # fmt: skip
    for shard in range(13):
        write_shard(str(tmp_path / f"part-{shard}.parquet"), [row] * 500, {"unit": UNIT})
    started = time.process_time()
    assert len(TokenStore.open(str(tmp_path))) == 6500
    assert time.process_time() - started < 1.0
