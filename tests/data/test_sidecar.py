"""The sidecar of a store: what training reads in place of the store, tied to it by a fingerprint."""

import uuid

import numpy as np
import pytest

from data import storage
from data.config import GrammarConfig, PhaseMixture
from data.errors import InputError
from data.grammar.template import build_grammars
from data.lengths import UNKNOWN, lengths_of
from data.sidecar import build_sidecar, open_sidecar, sidecar_fingerprint, store_fingerprint
from data.store import Record, StreamInfo, TokenStore, write_shard
from data.stream import TokenStream
from data.text_tokenizer import build_byte_words_tokenizer
from data.vocabulary import build_vocabulary

STREAMS = {"unit": StreamInfo(25.0, 1, 50, "u")}
CONFIG = GrammarConfig(
    templates={"asr": "[asr] {unit} | [text] {text} [eos]"},
    formats={
        "units": {"kind": "unit_lm"},
        "pairs": {"kind": "spiritlm_pairs"},
        "turns": {"kind": "speechgpt_cross_modal", "instructions": {"asr": ["a"], "tts": ["b"]}},
    },
    groups={"g": ("asr", "units", "pairs", "turns")},
)
TOKENIZER = build_byte_words_tokenizer(["one", "two"])
GRAMMARS = build_grammars(CONFIG, build_vocabulary(TOKENIZER, STREAMS, CONFIG, []), TOKENIZER, STREAMS)


def make_store(folder: str, count: int = 90) -> list[Record]:
    rng = np.random.default_rng(3)
    rows = [
        Record(
            f"{rng.integers(1 << 30):x}",
            None if number % 7 == 0 else "one two three"[: 3 + number % 10].strip(),
            split="dev" if number % 9 == 0 else "train",
            streams={} if number % 11 == 0 else {"unit": rng.integers(0, 50, 5 + number % 30).astype(np.int16)},
        )
        for number in range(count)
    ]
    for start in range(0, count, 40):
        write_shard(storage.join(folder, "shards", f"part-{start:04d}.parquet"), rows[start : start + 40], STREAMS)
    return rows


def make_sidecar(store: str, folder: str) -> str:
    fingerprint = sidecar_fingerprint(store, {"vocabulary": 1})
    build_sidecar(store, folder, lambda store: (GRAMMARS, {"rows": len(store)}), fingerprint, "train")
    return fingerprint


def test_lengths_are_those_that_the_grammars_measure_and_none_for_other_splits(tmp_path):
    rows = make_store(str(tmp_path / "store"))
    fingerprint = make_sidecar(str(tmp_path / "store"), str(tmp_path / "side"))
    store, lengths, _ = open_sidecar(str(tmp_path / "side"), fingerprint)
    assert [record.id for record in store.records] == [row.id for row in rows]
    assert store.streams == STREAMS
    for task, grammar in GRAMMARS.items():
        for row, length in zip(rows, lengths.by_task[task].tolist(), strict=True):
            if row.split != "train" or not grammar.accepts(row):
                assert length == 0
            else:
                assert length == (UNKNOWN if grammar.draws else len(grammar.tokens(row)[0]))


def test_the_records_of_a_split_are_those_of_the_store(tmp_path):
    make_store(str(tmp_path / "store"))
    fingerprint = make_sidecar(str(tmp_path / "store"), str(tmp_path / "side"))
    store, _, _ = open_sidecar(str(tmp_path / "side"), fingerprint)
    whole = TokenStore.open(str(tmp_path / "store"))
    for name in ("train", "dev", "test"):
        ids = [record.id for record in whole.split(name)]
        assert [record.id for record in store.split(name)] == ids
        assert [record.id for record in store.split(name)[1:3]] == ids[1:3]


def test_members_come_in_the_order_of_ids_with_or_without_a_sidecar(tmp_path):
    make_store(str(tmp_path / "store"))
    fingerprint = make_sidecar(str(tmp_path / "store"), str(tmp_path / "side"))
    store, lengths, _ = open_sidecar(str(tmp_path / "side"), fingerprint)
    train = [record for record in store.records if record.split == "train"]
    in_memory = lengths_of(train, GRAMMARS)
    for task in GRAMMARS:
        ids = [store.records[index].id for index in lengths.members(task).tolist()]
        assert ids == sorted(ids) == [train[index].id for index in in_memory.members(task).tolist()]


def test_a_sidecar_of_another_store_or_recipe_is_refused_and_a_half_made_one_is_none(tmp_path):
    make_store(str(tmp_path / "store"))
    side = str(tmp_path / "side")
    fingerprint = make_sidecar(str(tmp_path / "store"), side)
    with pytest.raises(InputError, match="delete the folder"):
        open_sidecar(side, sidecar_fingerprint(str(tmp_path / "store"), {"vocabulary": 2}))
    storage.delete(storage.join(side, "sidecar.json"))
    assert open_sidecar(side, fingerprint) is None


@pytest.mark.parametrize("name", ["sidecar.json", "by_id.npy", "lengths-0.npy", "records.arrow"])
@pytest.mark.parametrize("kept", [0, 0.7])
def test_a_damaged_sidecar_is_an_input_error(tmp_path, name, kept):
    make_store(str(tmp_path / "store"))
    fingerprint = make_sidecar(str(tmp_path / "store"), str(tmp_path / "side"))
    file = tmp_path / "side" / name
    file.write_bytes(file.read_bytes()[: int(kept * file.stat().st_size)])
    with pytest.raises(InputError, match="delete"):
        open_sidecar(str(tmp_path / "side"), fingerprint)


def test_a_sidecar_without_one_of_its_arrays_is_an_input_error(tmp_path):
    make_store(str(tmp_path / "store"))
    fingerprint = make_sidecar(str(tmp_path / "store"), str(tmp_path / "side"))
    (tmp_path / "side" / "lengths-1.npy").unlink()
    with pytest.raises(InputError, match="damaged"):
        open_sidecar(str(tmp_path / "side"), fingerprint)
    np.save(tmp_path / "side" / "lengths-1.npy", np.zeros(3, np.int32))
    with pytest.raises(InputError, match="damaged"):
        open_sidecar(str(tmp_path / "side"), fingerprint)


def test_the_fingerprint_of_a_store_changes_with_its_content_and_not_with_its_place(tmp_path):
    for name in "ab":
        make_store(str(tmp_path / name))
    found = store_fingerprint(str(tmp_path / "a"))
    assert found == store_fingerprint(str(tmp_path / "b"))
    shard = tmp_path / "a" / "shards" / "part-0000.parquet"
    table = TokenStore.open(str(tmp_path / "a")).records[:40]
    table[3] = Record(table[3].id, "other", streams=table[3].streams)
    write_shard(str(shard), table, STREAMS)
    changed = store_fingerprint(str(tmp_path / "a"))
    assert changed != found
    storage.write_json(str(tmp_path / "a" / "_SUCCESS"), {"id": "x", "wall_s": 1.5})
    assert store_fingerprint(str(tmp_path / "a")) != changed


def test_a_sidecar_on_an_object_store_is_read_from_a_copy_on_this_machine(tmp_path, monkeypatch):
    monkeypatch.setenv("ANTIPHON_CACHE", str(tmp_path / "cache"))
    rows = make_store(str(tmp_path / "store"))
    url = f"memory://{uuid.uuid4().hex}/side"
    fingerprint = make_sidecar(str(tmp_path / "store"), url)
    store, _, about = open_sidecar(url, fingerprint)
    assert about == {"rows": len(rows)}
    assert [record.id for record in store.records] == [row.id for row in rows]
    make_store(str(tmp_path / "other"), 30)
    again = make_sidecar(str(tmp_path / "other"), url)
    assert len(open_sidecar(url, again).store) == 30  # not the copy of before


@pytest.mark.parametrize("name", ["by_id.npy", "records.arrow"])
def test_a_damaged_copy_of_a_sidecar_is_fetched_anew(tmp_path, monkeypatch, name):
    """Else it would be damaged for ever: a sidecar that is made again has the same fingerprint."""
    monkeypatch.setenv("ANTIPHON_CACHE", str(tmp_path / "cache"))
    rows = make_store(str(tmp_path / "store"))
    url = f"memory://{uuid.uuid4().hex}/side"
    fingerprint = make_sidecar(str(tmp_path / "store"), url)
    (storage.local_folder(url, fingerprint) / name).write_bytes(b"")
    with pytest.raises(InputError):
        open_sidecar(url, fingerprint)
    assert len(open_sidecar(url, fingerprint).store) == len(rows)


def test_batches_are_the_same_with_a_sidecar_as_from_memory(tmp_path):
    rows = make_store(str(tmp_path / "store"))
    fingerprint = make_sidecar(str(tmp_path / "store"), str(tmp_path / "side"))
    store, lengths, _ = open_sidecar(str(tmp_path / "side"), fingerprint)
    phase = PhaseMixture(
        name="p", weights={"g": 1.0}, loss_weights={"asr": 0.5}, crop_probability=0.0, crop_end_fraction=0.5
    )
    train = [row for row in rows if row.split == "train"]
    ours = TokenStream(store.records, GRAMMARS, CONFIG.groups, phase, 20, 160, 3, 5, STREAMS, lengths=lengths)
    theirs = TokenStream(train, GRAMMARS, CONFIG.groups, phase, 20, 160, 3, 5, STREAMS)
    for step in range(12):
        for name in ("ids_BT", "labels_BT", "position_ids_BT", "weights_BT"):
            assert (getattr(ours.rows(step), name) == getattr(theirs.rows(step), name)).all()
