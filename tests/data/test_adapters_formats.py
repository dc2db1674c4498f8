"""Adapters of formats that any corpus may have, each on a tiny folder of the real layout."""

import gzip
import json
import shutil
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as parquet
import pytest
from pydantic import TypeAdapter

from data.config import CorpusConfig
from data.corpus.brought import bring, content_id
from data.errors import InputError
from data.manifest import PART_OF_FILE
from tests.data.tiny_corpora import RATE, brought, config, decoded, encoded, write

# audiofolder


def test_audiofolder_with_tables(tmp_path: Path) -> None:
    folder = tmp_path / "mine"
    for name in ("train/a.wav", "train/deep/b.wav", "train/unlisted.wav", "validation/c.wav", "test/d.wav"):
        write(folder / name, encoded())
    write(
        folder / "train/metadata.csv", 'file_name,transcription\na.wav,"one, two"\ndeep/b.wav,three\ngone.wav,x\n,y\n'
    )
    write(folder / "validation/metadata.jsonl", '{"file_name": "c.wav", "transcription": "four"}\n{broken\n')
    parquet.write_table(pa.table({"file_name": ["d.wav"], "transcription": ["five"]}), folder / "test/metadata.parquet")
    found, bad, _ = brought("audiofolder", folder, fields={"text": "transcription"})
    by_path = {Path(item.audio_filepath).name: item for item in found.values()}
    assert {name: (item.text, item.split) for name, item in by_path.items()} == {
        "a.wav": ("one, two", "train"),
        "b.wav": ("three", "train"),
        "c.wav": ("four", "dev"),
        "d.wav": ("five", "test"),
        "unlisted.wav": (None, "train"),
    }
    assert sorted(bad.values()) == ["bad_field", "missing", "not_json"]


def test_what_cannot_be_opened_is_named(tmp_path: Path) -> None:
    write(tmp_path / "table/metadata.parquet", b"PAR1 cut")
    with pytest.raises(InputError, match=r"metadata\.parquet: .*broken off"):
        brought("audiofolder", tmp_path / "table")
    write(tmp_path / "saved/state.json", "{")
    with pytest.raises(InputError, match="cannot be opened by datasets"):
        brought("hf_dataset", tmp_path / "saved")


def test_a_path_that_leads_out_of_its_folder_and_back_names_its_file_once(tmp_path: Path) -> None:
    write(tmp_path / "corpus/train/metadata.csv", "file_name,text\n../audio/a.wav,hello\n")
    write(tmp_path / "corpus/audio/a.wav", encoded())
    found, bad, _ = brought("audiofolder", tmp_path / "corpus")
    assert ([item.text for item in found.values()], bad) == (["hello"], {})


def test_times_in_a_csv_table_are_numbers(tmp_path: Path) -> None:
    for name in "abcd":
        write(tmp_path / f"mine/{name}.wav", encoded())
    table = "file_name,length,offset\na.wav,0.25,0.125\nb.wav,,\nc.wav,long,0\nd.wav\n"
    write(tmp_path / "mine/metadata.csv", table)
    found, bad, _ = brought("audiofolder", tmp_path / "mine", fields={"duration": "length"})
    spans = {Path(item.audio_filepath).name: (item.offset, item.duration) for item in found.values()}
    assert spans == {"a.wav": (0.125, 0.25), "b.wav": (0.0, 0.5), "d.wav": (0.0, 0.5)}
    assert list(bad.values()) == ["bad_field"]
    write(tmp_path / "mine/metadata.csv", 'file_name,text\na.wav,"open\n' + "b.wav,x\n" * 20_000)
    with pytest.raises(InputError, match="quotation mark"):
        brought("audiofolder", tmp_path / "mine")


def test_audiofolder_without_tables_takes_labels_from_folders(tmp_path: Path) -> None:
    for name in ("train/dog/a.wav", "test/cat/b.wav"):
        write(tmp_path / "mine" / name, encoded())
    found, _, _ = brought("audiofolder", tmp_path / "mine")
    assert {(item.extra["label"], item.split) for item in found.values()} == {("dog", "train"), ("cat", "test")}


def test_a_link_to_nowhere_is_a_missing_file(tmp_path: Path) -> None:
    write(tmp_path / "mine/a.wav", encoded())
    for name in ("b.wav", "notes.txt"):
        (tmp_path / "mine" / name).symlink_to(tmp_path / "gone")
    found, bad, _ = brought("audiofolder", tmp_path / "mine")
    assert ([Path(item.audio_filepath).name for item in found.values()], list(bad.values())) == (["a.wav"], ["missing"])
    assert content_id(config("audiofolder", tmp_path / "mine"))


# datasets on disk


def saved_dataset(folder: Path) -> None:
    datasets = pytest.importorskip("datasets")
    features = datasets.Features(
        {"audio": datasets.Audio(), "sentence": datasets.Value("string"), "take": datasets.Value("int64")}
    )
    audio = [
        {"bytes": encoded(0.5, "FLAC"), "path": "x.flac"},
        {"bytes": b"broken", "path": None},
        {"bytes": encoded(0.75), "path": None},
    ]
    columns = {"audio": audio, "sentence": ["eins", "zwei", "drei"], "take": [1, 2, 3]}
    # By way of Arrow: `datasets` itself wants torchcodec to put audio into a dataset.
    made = datasets.Dataset(pa.table(columns, schema=features.arrow_schema))
    datasets.DatasetDict({"train": made, "validation": made.select([0])}).save_to_disk(str(folder))


def test_a_dataset_on_disk_is_written_out_as_it_is(tmp_path: Path) -> None:
    saved_dataset(tmp_path / "saved")
    found, bad, run = brought("hf_dataset", tmp_path / "saved", fields={"text": "sentence"}, test={"take": [3]})
    assert {name: (item.text, item.split) for name, item in found.items()} == {
        "train/00000000": ("eins", "train"),
        "train/00000002": ("drei", "test"),
        "validation/00000000": ("eins", "dev"),
    }
    assert bad == {"train/00000001": "not_audio"}
    first = found["train/00000000"]
    assert first.audio_filepath.startswith("audio/")
    assert (run / first.audio_filepath).read_bytes() == encoded(0.5, "FLAC")
    assert first.duration == 0.5
    again = tmp_path / "again"
    shutil.copytree(tmp_path / "saved", again)
    assert content_id(config("hf_dataset", tmp_path / "saved")) == content_id(config("hf_dataset", again))
    with pytest.raises(InputError, match="column 'sentence' of type Audio"):
        brought("hf_dataset", tmp_path / "saved", audio_column="sentence")


# Kaldi


def kaldi(folder: Path, name: str, **tables: str) -> None:
    for table, content in tables.items():
        write(folder / name / table.replace("wav_scp", "wav.scp"), content)


def test_kaldi_with_segments(tmp_path: Path) -> None:
    write(tmp_path / "audio/r1.wav", encoded(2.0))
    folder = tmp_path / "data"
    kaldi(
        folder,
        "train",
        wav_scp=f"r1 {tmp_path}/audio/r1.wav\n",
        segments="u1 r1 0.5 1.0\nu2\tr1 1.25 1.75\nu3 r9 0 1\nu4 r1 1.0 0.5\nu5 r1 zero one\n"
        "u6 r1 1.5 -1\nu7 r1 0 1 B\n",
        text="u1 hello there\nu2 ça va\n",
        utt2spk="u1 s1\nu2 s1\n",
        spk2gender="s1 f\n",
    )
    kaldi(folder, "test", wav_scp=f"r1_full {tmp_path}/audio/r1.wav\n", text="r1_full everything\n")
    found, bad, run = brought("kaldi", folder)
    assert bad == {"u3": "missing", "u4": "bad_field", "u5": "bad_field", "u7": "bad_field"}
    assert (found["u6"].offset, found["u6"].duration) == (1.5, 0.5)  # -1: to the end
    first = found["u1"]
    assert (first.text, first.speaker, first.offset, first.duration) == ("hello there", "s1", 0.5, 0.5)
    assert first.extra == {"part": "train", "gender": "f", "recording": "r1"}
    assert decoded(run, first).size == RATE // 2
    assert (found["u2"].text, found["r1_full"].split) == ("ça va", "test")
    assert found["r1_full"].duration == 2.0
    assert set(brought("kaldi", folder / "train")[0]) == {"u1", "u2", "u6"}


@pytest.mark.parametrize(
    ("entry", "message"), [("sph2pipe -f wav a.sph |", "shell command"), ("foo.ark:128", "archive")]
)
def test_kaldi_commands_are_refused_and_never_run(tmp_path: Path, entry: str, message: str) -> None:
    kaldi(tmp_path, "train", wav_scp=f"r1 a.wav\nr2 {entry}\n")
    with pytest.raises(InputError, match=message) as refused:
        brought("kaldi", tmp_path / "train")
    assert "r2" in str(refused.value)


def test_an_id_that_stands_twice_in_a_kaldi_table_is_listed(tmp_path: Path) -> None:
    for name in ("a", "b"):
        write(tmp_path / f"{name}.wav", encoded(2.0))
    write(tmp_path / "whole/wav.scp", f"r1 {tmp_path}/a.wav\nr1 {tmp_path}/b.wav\n")
    found, bad, _ = brought("kaldi", tmp_path / "whole")
    assert (found["r1"].audio_filepath, bad) == (f"{tmp_path}/a.wav", {"r1#2": "duplicate_id"})
    write(tmp_path / "cut/wav.scp", f"r1 {tmp_path}/a.wav\n")
    write(tmp_path / "cut/segments", "u1 r1 0 1\nu1 r1 1 2\n")
    write(tmp_path / "cut/text", "u1 first\nu1 second\n")
    found, bad, _ = brought("kaldi", tmp_path / "cut")
    assert (found["u1"].offset, found["u1"].text, bad) == (0.0, "first", {"u1#2": "duplicate_id"})


# Lhotse


def cut(path: str, number: int, start: float, duration: float, **fields: Any) -> dict[str, Any]:
    source = {"type": "file", "channels": [0], "source": path}
    recording = {"id": "r", "sources": [source], "sampling_rate": RATE, "num_samples": 2 * RATE, "duration": 2.0}
    common = {"id": f"cut-{number}", "start": start, "duration": duration, "channel": 0, "type": "MonoCut"}
    return {**common, "supervisions": [], "recording": recording, **fields}


def supervision(name: str, start: float, duration: float, text: str) -> dict[str, Any]:
    return {"id": name, "recording_id": "r", "start": start, "duration": duration, "channel": 0, "text": text} | {
        "language": "English",
        "speaker": "s1",
        "alignment": {"word": [[text, start + 0.1, 0.1]]},
    }


def test_lhotse_cuts(tmp_path: Path) -> None:
    folder = tmp_path / "fbank"
    write(folder / "r.wav", encoded(2.0))
    two = [supervision("s-a", 0.0, 0.25, "one"), supervision("s-b", 0.25, 0.25, "two")]
    stereo = cut("r.wav", 5, 0.0, 1.0, supervisions=[supervision("s-d", 0.0, 1.0, "left")])
    stereo["recording"]["sources"][0]["channels"] = [0, 1]
    command = cut("sox r.wav -t wav -", 6, 0.0, 1.0)
    command["recording"]["sources"][0]["type"] = "command"
    lines: list[Any] = [
        cut("r.wav", 1, 0.5, 1.0, supervisions=[supervision("s-c", 0.25, 0.5, "hello")]),
        cut("r.wav", 2, 1.0, 0.5, supervisions=two),
        cut(str(folder / "r.wav"), 3, 0.0, 2.0, custom={"source": "radio", "shape": [1, 2]}),
        {"id": "pad", "duration": 1.0, "sampling_rate": RATE, "feat_value": 0.0, "type": "PaddingCut"},
        stereo,
        command,
        {"type": "Unheard"},
    ]
    content = "\n".join(json.dumps(line) for line in lines)
    write(folder / "cuts_train.jsonl.gz", gzip.compress(content.encode()))
    write(folder / "cuts_dev.jsonl", json.dumps(cut("r.wav", 9, 0.0, 0.5)) + "\n")
    found, bad, run = brought("lhotse", folder)
    assert {name: (item.offset, item.duration, item.text) for name, item in found.items()} == {
        "cut-1": (0.75, 0.5, "hello"),
        "s-a": (1.0, 0.25, "one"),
        "s-b": (1.25, 0.25, "two"),
        "cut-3": (0.0, 2.0, None),
        "cut-9": (0.0, 0.5, None),
    }
    assert found["cut-1"].words == (("hello", 0.1, 0.2),)
    radio = {"source": "radio", "sample_rate": RATE, PART_OF_FILE: True}
    assert (found["cut-1"].lang, found["cut-3"].extra) == ("en", radio)
    assert (found["cut-9"].split, found["cut-1"].split) == ("dev", "train")
    assert bad == {"pad": "bad_field", "cut-5": "bad_field", "cut-6": "bad_field", "cuts_train.jsonl.gz:7": "bad_field"}
    assert decoded(run, found["s-b"]).size == RATE // 4
    assert set(brought("lhotse", folder / "cuts_dev.jsonl")[0]) == {"cut-9"}


@pytest.mark.parametrize("kind", ["audiofolder", "hf_dataset", "webdataset", "kaldi", "lhotse"])
def test_the_wrong_folder_is_refused(kind: str, tmp_path: Path) -> None:
    write(tmp_path / "corpus/README.md", "something else")
    with pytest.raises(InputError, match=r"looked for .*found README\.md"):
        brought(kind, tmp_path / "corpus")
    with pytest.raises(InputError, match="is a URL"):
        bring(TypeAdapter(CorpusConfig).validate_python({"kind": kind, "path": "s3://bucket/x"}), str(tmp_path))
