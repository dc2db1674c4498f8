"""Rows at hand in one file: the same records as those that a store reads whole, whatever they hold."""

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from data import rows as rows_module
from data.errors import InputError
from data.rows import Rows, write_rows
from data.store import Record, StreamInfo, TokenStore, read_shards, write_shard

STREAMS = {"unit": StreamInfo(25.0, 1, 500, "u"), "music": StreamInfo(50.0, 4, 64, "m")}


def same(ours: Record, theirs: Record) -> bool:
    fields = ("id", "text", "speaker", "lang", "duration_s", "caption", "kind", "split", "words", "extra")
    return all(getattr(ours, name) == getattr(theirs, name) for name in fields) and all(
        {k: v.tolist() for k, v in getattr(ours, name).items()}
        == {k: v.tolist() for k, v in getattr(theirs, name).items()}
        for name in ("streams", "durations")
    )


def written(folder: str, shards: list[list[Record]]) -> Rows:
    for number, shard in enumerate(shards):
        write_shard(f"{folder}/shards/part-{number}.parquet", shard, STREAMS)
    with open(f"{folder}/records.arrow", "wb") as handle:
        write_rows(handle, (table for _, table in read_shards(folder)), STREAMS)
    return Rows(f"{folder}/records.arrow")


codes = st.none() | st.lists(st.integers(0, 499), max_size=9).map(lambda values: np.array(values, np.int16))
texts = st.none() | st.text(st.characters(exclude_categories=("Cs",)), max_size=8)
records = st.builds(
    lambda name, text, words, unit, music, doubled, link: Record(
        name,
        text,
        text,
        words=None if words is None else tuple(words),
        extra={} if link is None else {"response": link},
        streams={k: v for k, v in {"unit": unit, "music": music}.items() if v is not None},
        durations={"unit": unit} if doubled and unit is not None else {},
    ),
    st.text("abé+", max_size=3),
    texts,
    st.none() | st.lists(st.tuples(st.text("aé", max_size=3), st.floats(0, 9), st.floats(0, 9)), max_size=3),
    codes,
    codes,
    st.booleans(),
    st.none() | st.text("abé+", max_size=3) | st.integers(),
)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(shards=st.lists(st.lists(records, min_size=1, max_size=6), min_size=1, max_size=3), size=st.integers(1, 5))
def test_rows_are_the_stores_records_and_lead_to_the_same_answers(shards, size, tmp_path_factory, monkeypatch):
    monkeypatch.setattr(rows_module, "BATCH_ROWS", size)
    folder = str(tmp_path_factory.mktemp("store"))
    rows = written(folder, shards)
    whole = TokenStore.open(folder).records
    assert len(rows) == len(whole)
    assert rows.streams == STREAMS
    for index, record in reversed(list(enumerate(whole))):  # in no order that the file has
        assert same(rows[index], record)
        assert (rows.field("id", index), rows.field("text", index)) == (record.id, record.text)
        assert (rows[index].response is None) == (record.response is None)
        if record.response is not None:
            assert same(rows[index].response, record.response)
    assert all(same(ours, theirs) for ours, theirs in zip(rows, whole, strict=True))
    assert rows.by_id.tolist() == sorted(range(len(whole)), key=lambda index: whole[index].id)
    assert rows.code_counts("unit").tolist() == [len(record.streams.get("unit", ())) for record in whole]


def test_a_question_whose_answer_asks_it_again_is_a_circle(tmp_path):
    rows = written(str(tmp_path), [[Record("a", extra={"response": "b"}), Record("b", extra={"response": "a"})]])
    first = rows[0]
    assert first.response.response is first
    assert rows.index_of("b") == 1
    assert rows.index_of("c") is None
    assert rows.index_of("") is None


def test_a_long_talk_whose_turns_lead_to_each_other_is_read(tmp_path):
    talk = [Record(f"{turn:04d}", extra={"response": f"{turn + 1:04d}"}) for turn in range(1500)]
    record, turns = written(str(tmp_path), [talk])[0], 1
    while record.response is not None:
        record, turns = record.response, turns + 1
    assert turns == 1500


def test_indices_count_from_the_end_too_and_others_are_refused(tmp_path):
    rows = written(str(tmp_path), [[Record(name) for name in "abc"]])
    assert rows[-1].id == "c"
    assert [record.id for record in rows[1:]] == ["b", "c"]
    with pytest.raises(IndexError):
        rows[3]


def test_missing_streams_are_absent(tmp_path):
    rows = written(str(tmp_path), [[Record("a", streams={"unit": np.array([1, 2], np.int16)})]])
    assert rows.codes("music", 0) is None
    assert rows[0].streams.keys() == {"unit"}


def test_what_is_no_file_of_rows_is_an_input_error(tmp_path):
    (tmp_path / "records.arrow").write_bytes(b"nothing of the sort")
    with pytest.raises(InputError, match="made again"):
        Rows(str(tmp_path / "records.arrow"))
