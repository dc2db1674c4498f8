from pathlib import Path

import pytest

from data.errors import InputError
from data.manifest import RowError, Utterance, default_id, parse_row, read_manifest, resolve_audio, write_manifest


def test_an_utterance_survives_the_way_through_a_file(tmp_path: Path) -> None:
    utterance = Utterance(
        id="a",
        audio_filepath="a.wav",
        duration=1.5,
        text="höher, bitte",
        words=(("höher", 0.0, 0.7), ("bitte", 0.7, 1.5)),
        split="dev",
        extra={"take": 8, "nested": {"x": [1, 2]}},
    )
    write_manifest(tmp_path / "m.jsonl", [utterance])
    assert list(read_manifest(tmp_path / "m.jsonl")) == [utterance]


def test_an_id_that_is_not_given_hangs_on_path_offset_and_duration() -> None:
    ids = {
        Utterance.from_row({"audio_filepath": path, "offset": offset, "duration": duration}).id
        for path in ("a.wav", "b.wav")
        for offset in (0, 1.5)
        for duration in (None, 2.0)
    }
    assert len(ids) == 8
    assert Utterance.from_row({"audio_filepath": "a.wav"}).id == default_id("a.wav", 0.0, None)


def test_speakers_and_ids_may_be_numbers() -> None:
    utterance = Utterance.from_row({"audio_filepath": "a.wav", "speaker": 1034, "id": 7})
    assert (utterance.speaker, utterance.id) == ("1034", "7")


@pytest.mark.parametrize(
    "wrong",
    [
        {"audio_filepath": 3},
        {"audio_filepath": ""},
        {"duration": "2.0"},
        {"duration": -1},
        {"duration": float("nan")},
        {"duration": True},
        {"duration": 1e308},
        {"duration": 10**400},
        {"offset": -0.1},
        {"text": 5},
        {"kind": "noise"},
        {"split": "validation"},
        {"words": [["a", 1.0]]},
        {"words": [["a", 1.0, 0.5]]},
        {"words": 3},
        {"words": [[None, 0.0, 0.5]]},
        {"words": [["a", 0, 10**400]]},
        {"words": [["a", 0, 1e308]]},
    ],
)
def test_a_wrong_field_is_named_with_its_value(wrong: dict[str, object]) -> None:
    with pytest.raises(RowError, match=next(iter(wrong))):
        Utterance.from_row({"audio_filepath": "a.wav", **wrong})


@pytest.mark.parametrize("line", [b"{", b"[1]", b"\xff\xfe", b'{"text": "\\ud800"}', b"[" * 100_000])
def test_a_line_that_is_no_object_is_an_error(line: bytes) -> None:
    with pytest.raises(RowError):
        parse_row(line)


def test_a_broken_manifest_of_ours_is_named_with_the_row(tmp_path: Path) -> None:
    (tmp_path / "m.jsonl").write_text('{"audio_filepath": "a.wav"}\n{"text": "x"}\n')
    with pytest.raises(InputError, match="row 2"):
        list(read_manifest(tmp_path / "m.jsonl"))


def test_audio_counts_from_the_folder_of_the_manifest(tmp_path: Path) -> None:
    def resolved(manifest: object, path: str) -> str:
        return resolve_audio(str(manifest), Utterance(id="a", audio_filepath=path))

    assert resolved(tmp_path / "m.jsonl", "wav/a.wav") == str(tmp_path / "wav" / "a.wav")
    assert resolved(tmp_path / "m.jsonl", "/x/a.wav") == "/x/a.wav"
    assert resolved(tmp_path / "m.jsonl", "s3://b/a.wav") == "s3://b/a.wav"
    assert resolved("s3://b/set/m.jsonl", "wav/a.wav") == "s3://b/set/wav/a.wav"
