import json
from pathlib import Path
from typing import Any

import pytest

from data.corpus.config import ManifestCorpus
from data.corpus.imported import Imported, import_corpus, normalize_text
from data.errors import InputError
from data.manifest import PART_OF_FILE


def imported(folder: Path, rows: list[Any], **options: Any) -> Imported:
    lines = [row if isinstance(row, str) else json.dumps(row) for row in rows]
    (folder / "m.jsonl").write_text("\n".join(lines) + "\n")
    return import_corpus(ManifestCorpus(kind="manifest", manifest=str(folder / "m.jsonl"), **options))


def row(path: str = "a.wav", **fields: Any) -> dict[str, Any]:
    return {"audio_filepath": path, **fields}


def test_paths_become_absolute_and_ids_hang_on_the_path_as_written(tmp_path: Path) -> None:
    (tmp_path / "one").mkdir()
    (tmp_path / "two").mkdir()
    rows = [row("wav/a.wav", duration=1.0, text="Hello, there!", take=3)]
    first, second = (imported(tmp_path / name, rows).utterances[0] for name in ("one", "two"))
    assert first.audio_filepath == str(tmp_path / "one" / "wav" / "a.wav")
    assert first.id == second.id
    assert first.text == "Hello, there!"
    assert first.extra == {"take": 3}


def test_a_row_without_an_offset_speaks_of_the_whole_file_where_no_other_goes_on_in_it(tmp_path: Path) -> None:
    rows = [
        row("a.wav", duration=1.0),
        row("b.wav", duration=1.0, offset=0),
        row("c.wav", duration=1.0),
        row("c.wav", duration=2.0, offset=1.0),
        row("d.wav"),
    ]
    found = imported(tmp_path, rows).utterances
    assert [item.is_whole_file for item in found] == [True, False, False, False, True]
    assert [item.extra for item in found] == [{}, {PART_OF_FILE: True}, {PART_OF_FILE: True}, {}, {}]


def test_fields_are_renamed_and_texts_normalised_only_when_asked(tmp_path: Path) -> None:
    rows = [{"path": "a.wav", "sentence": "It's FINE, really.", "who": 7}]
    names = {"audio_filepath": "path", "text": "sentence", "speaker": "who"}
    utterance = imported(tmp_path, rows, fields=names, normalize_text=True).utterances[0]
    assert (utterance.text, utterance.speaker, utterance.extra) == ("it's fine really", "7", {})


def test_hold_outs_go_by_any_field_and_the_rest_trains(tmp_path: Path) -> None:
    rows = [row(f"{take}.wav", take=take) for take in range(10)]
    splits = [item.split for item in imported(tmp_path, rows, test={"take": [8, 9]}, dev={"take": [7]}).utterances]
    assert splits == ["train"] * 7 + ["dev", "test", "test"]


def test_the_manifests_own_splits_are_kept_or_translated(tmp_path: Path) -> None:
    rows = [row("a.wav", split="dev"), row("b.wav")]
    assert [item.split for item in imported(tmp_path, rows).utterances] == ["dev", "train"]
    rows = [row("a.wav", split="train-clean"), row("b.wav", split="test-clean")]
    held_out = imported(tmp_path, rows, test={"split": ["test-clean"]})
    assert [item.split for item in held_out.utterances] == ["train", "test"]


def test_a_field_of_our_name_that_means_something_else_can_be_left_out(tmp_path: Path) -> None:
    rows = [row("a.wav", kind="podcast"), row("b.wav", split="validation")]
    with pytest.raises(InputError, match=r"kind is 'podcast'.*corpus\.fields\.kind=''"):
        imported(tmp_path, rows[:1])
    found = imported(tmp_path, rows, fields={"kind": ""})
    assert [item.kind for item in found.utterances] == ["speech"]
    assert "corpus.dev say what" in found.quarantine[0]["detail"]
    found = imported(tmp_path, rows, fields={"kind": ""}, dev={"split": ["validation"]})
    assert [item.split for item in found.utterances] == ["train", "dev"]


def test_duplicates_and_wrong_rows_are_quarantined_with_reasons(tmp_path: Path) -> None:
    rows = [row(), row(), row(), row("b.wav", duration="long"), "{broken", row("c.wav")]
    result = imported(tmp_path, rows)
    assert len(result.utterances) == 2
    identity = result.utterances[0].id
    assert {(bad["id"], bad["reason"]) for bad in result.quarantine if bad["reason"] == "duplicate_id"} == {
        (f"{identity}#2", "duplicate_id"),
        (f"{identity}#3", "duplicate_id"),
    }
    assert sorted(bad["reason"] for bad in result.quarantine) == [
        "bad_field",
        "duplicate_id",
        "duplicate_id",
        "not_json",
    ]
    assert all(set(bad) == {"id", "audio_filepath", "reason", "detail"} for bad in result.quarantine)
    assert len({bad["id"] for bad in result.quarantine}) == 4


@pytest.mark.parametrize(
    ("rows", "options", "message"),
    [
        ([], {}, "empty"),
        (["id,path", "1,a.wav"], {}, "not JSONL"),
        ([[row()]], {}, "not JSONL"),
        ([{"path": "a.wav"}], {}, r"corpus\.fields\.audio_filepath"),
        ([row()], {"fields": {"text": "sentence"}}, "sentence"),
        ([row()], {"fields": {"txt": "audio_filepath"}}, "txt"),
        ([row()], {"test": {"take": [8]}}, r"corpus\.test\.take"),
        ([row(take=1)], {"test": {"take": [8]}}, "holds nothing out"),
        ([row(duration="x")], {}, "every row is wrong"),
    ],
)
def test_a_manifest_that_cannot_serve_is_refused_with_a_remedy(
    tmp_path: Path, rows: list[Any], options: dict[str, Any], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        imported(tmp_path, rows, **options)


def test_a_missing_manifest_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"none\.jsonl"):
        import_corpus(ManifestCorpus(kind="manifest", manifest=str(tmp_path / "none.jsonl")))


def test_a_byte_order_mark_and_blank_lines_are_no_obstacle(tmp_path: Path) -> None:
    (tmp_path / "m.jsonl").write_bytes(b'\xef\xbb\xbf{"audio_filepath": "a.wav"}\r\n\r\n')
    config = ManifestCorpus(kind="manifest", manifest=str(tmp_path / "m.jsonl"))
    assert len(import_corpus(config).utterances) == 1


def test_normalising_keeps_letters_of_every_script() -> None:
    assert normalize_text("Größe — не  ‘так’, don't!") == "größe не так don't"


def test_the_real_manifest_is_read_whole(real_audio: Path) -> None:
    manifest = str(real_audio / "digits" / "manifest.jsonl")
    result = import_corpus(ManifestCorpus(kind="manifest", manifest=manifest, test={"take": [8, 9]}))
    assert not result.quarantine
    held_out = [item for item in result.utterances if item.split == "test"]
    assert held_out
    assert {item.extra["take"] for item in held_out} == {8, 9}
    assert Path(result.utterances[0].audio_filepath).is_file()
