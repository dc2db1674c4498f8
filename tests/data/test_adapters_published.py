"""Adapters of published corpora, each on a tiny folder in the publisher's layout."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from pydantic import TypeAdapter

from data.config import CorpusConfig
from data.corpus.adapters.base import adapter_class
from data.corpus.adapters.gigaspeech import GigaSpeechAdapter
from data.corpus.brought import bring, content_id
from data.corpus.config import GigaSpeechCorpus
from data.corpus.validate import Checked
from data.errors import InputError
from data.manifest import Utterance


def sound(path: Path, seconds: float = 0.5, rate: int = 16000) -> None:
    """A short tone; the format goes by the ending."""
    path.parent.mkdir(parents=True, exist_ok=True)
    wave = 0.1 * np.sin(np.arange(int(seconds * rate)) * 0.1)
    opus = path.suffix == ".opus"
    soundfile.write(path, wave, rate, format="OGG" if opus else None, subtype="OPUS" if opus else None)


def table(path: Path, *lines: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


def config(kind: str, path: Path, **options: Any) -> Any:
    return TypeAdapter(CorpusConfig).validate_python({"kind": kind, "path": str(path), **options})


def brought(kind: str, path: Path, **options: Any) -> tuple[dict[str, Utterance], dict[str, str]]:
    """Utterances by id, and the reason of every id in quarantine."""
    result: Checked = bring(config(kind, path, **options), str(path.parent / "run"))
    by_id = {utterance.id: utterance for utterance in result.utterances}
    assert len(by_id) == len(result.utterances)
    return by_id, {row["id"]: row["reason"] for row in result.quarantine}


def librispeech(folder: Path) -> Path:
    for part, name in (
        ("train-clean-100", "19-198-0000"),
        ("train-clean-100", "19-198-0001"),
        ("test-clean", "61-7-0"),
    ):
        speaker, chapter, _ = name.split("-")
        sound(folder / part / speaker / chapter / f"{name}.flac")
    table(
        folder / "train-clean-100/19/198/19-198.trans.txt",
        "19-198-0000 NORTHANGER ABBEY",
        "19-198-0001 B",
        "19-198-9 C",
    )
    table(folder / "test-clean/61/7/61-7.trans.txt", "61-7-0 HE BEGAN")
    table(folder / "train-clean-100/19/198/19-198.alignment.txt", '19-198-0000 ",NORTHANGER,ABBEY," "0.1,0.25,0.4,0.5"')
    table(folder / "SPEAKERS.TXT", "; a table")
    return folder


def test_librispeech(tmp_path: Path) -> None:
    folder = librispeech(tmp_path / "LibriSpeech")
    (folder / "train-clean-100/19/198/19-198-0001.flac").write_bytes(b"no audio")
    found, bad = brought("librispeech", folder)
    assert bad == {"19-198-0001": "not_audio", "19-198-9": "missing"}
    first = found["19-198-0000"]
    assert (first.text, first.speaker, first.lang, first.split) == ("NORTHANGER ABBEY", "19", "en", "train")
    assert first.words == (("NORTHANGER", 0.1, 0.25), ("ABBEY", 0.25, 0.4))
    assert first.duration == pytest.approx(0.5)
    assert Path(first.audio_filepath).is_file()
    assert found["61-7-0"].split == "test"
    assert set(brought("librispeech", folder, parts=["test-clean"])[0]) == {"61-7-0"}
    with pytest.raises(InputError, match="looked for dev-clean/"):
        brought("librispeech", folder, parts=["dev-clean"])


def librilight(folder: Path) -> Path:
    book = folder / "small/100/sea_fairies_0812_librivox_64kb_mp3"
    for number in (1, 2):
        sound(book / f"0{number}_baum_64kb.flac", 2.0)
    described = {"speaker": "100", "book_meta": {"title": "Sea Fairies"}, "snr": 11.5, "voice_activity": [[0.1, 0.9]]}
    described["voice_activity"] = [[0.1, 0.9], [1.0, 1.75]]
    (book / "01_baum_64kb.json").write_text(json.dumps(described))
    return folder


def test_librilight(tmp_path: Path) -> None:
    folder = librilight(tmp_path / "librilight")
    name = "small/100/sea_fairies_0812_librivox_64kb_mp3/0"
    found, bad = brought("librilight", folder)
    assert bad == {f"{name}2_baum_64kb": "bad_field"}
    assert set(found) == {f"{name}1_baum_64kb_0", f"{name}1_baum_64kb_1"}
    second = found[f"{name}1_baum_64kb_1"]
    assert (second.offset, second.duration, second.speaker, second.text) == (1.0, 0.75, "100", None)
    whole, _ = brought("librilight", folder, utterances="recording")
    assert whole[f"{name}1_baum_64kb"].duration == pytest.approx(2.0)


def mls(folder: Path) -> Path:
    language = folder / "mls_polish_opus"
    sound(language / "train/audio/6892/9023/6892_9023_000000.opus")
    sound(language / "dev/audio/1/2/1_2_000003.flac")
    table(language / "metainfo.txt", "SPEAKER | GENDER | PARTITION", " 6892 | M | train | 1.0 | x | y")
    table(language / "train/transcripts.txt", "6892_9023_000000\tzażółć gęślą", "no tab here")
    table(language / "dev/transcripts.txt", "1_2_000003\tjaźń")
    return folder


def test_mls(tmp_path: Path) -> None:
    folder = mls(tmp_path / "mls")
    found, bad = brought("mls", folder)
    first = found["6892_9023_000000"]
    assert (first.text, first.lang, first.speaker, first.extra["gender"]) == ("zażółć gęślą", "pl", "6892", "M")
    assert found["1_2_000003"].split == "dev"
    assert list(bad.values()) == ["bad_field"]
    assert set(brought("mls", folder / "mls_polish_opus")[0]) == set(found)
    with pytest.raises(InputError, match="mls_dutch/"):
        brought("mls", folder, languages=["dutch"])


def commonvoice(folder: Path) -> Path:
    heading = "client_id\tpath\tsentence\tup_votes\tgender\tlocale"
    for number in range(3):
        sound(folder / f"pl/clips/cv_{number}.mp3")
    table(
        folder / "pl/train.tsv", heading, 'abc\tcv_0.mp3\tOn rzekł: "tak\t2\tmale\tpl', "abc\tcv_9.mp3\tNie ma\t2\t\tpl"
    )
    table(folder / "pl/dev.tsv", heading, "def\tcv_1.mp3\tDwa\t2\t\tpl")
    table(folder / "pl/test.tsv", heading, "ghi\tcv_2.mp3\tTrzy\t2\t\tpl")
    table(folder / "pl/validated.tsv", heading, "abc\tcv_0.mp3\tRaz\t2\t\tpl")
    table(folder / "pl/clip_durations.tsv", "clip\tduration[ms]", "cv_0.mp3\t504")
    return folder


def test_commonvoice(tmp_path: Path) -> None:
    folder = commonvoice(tmp_path / "cv-corpus-17.0-2024-03-15")
    found, bad = brought("commonvoice", folder)
    assert bad == {"cv_9": "missing"}
    assert {name: item.split for name, item in found.items()} == {"cv_0": "train", "cv_1": "dev", "cv_2": "test"}
    first = found["cv_0"]
    assert (first.text, first.speaker, first.lang, first.duration) == ('On rzekł: "tak', "abc", "pl", 0.504)
    assert first.extra == {"gender": "male", "up_votes": "2", "part": "train"}
    _, overlapping = brought("commonvoice", folder / "pl", tables=["train", "validated"])
    assert overlapping["cv_0#2"] == "duplicate_id"


def test_a_broken_line_of_a_commonvoice_table_costs_itself_alone(tmp_path: Path) -> None:
    folder = commonvoice(tmp_path / "cv")
    table(folder / "pl/train.tsv", "client_id\tpath\tsentence", "a\tcv_0.mp3\tRaz\rdwa", "a\tcv_1.mp3\tTrzy")
    table(folder / "pl/clip_durations.tsv", "clip\tduration[ms]", "cv_1.mp3\t504", "cv_0.mp3\tlong", "cv_9")
    found, bad = brought("commonvoice", folder, tables=["train"])
    assert {name: item.text for name, item in found.items()} == {"cv_0": "Raz dwa", "cv_1": "Trzy"}
    assert found["cv_1"].duration == 0.504
    assert bad == {}


def test_a_line_in_another_encoding_is_one_bad_row(tmp_path: Path) -> None:
    folder = commonvoice(tmp_path / "cv")
    lines = ["client_id\tpath\tsentence", "a\tcv_0.mp3\tdobrze", "a\tcv_1.mp3\tźle"]
    (folder / "pl/train.tsv").write_bytes("\n".join(lines).encode("iso8859_2"))
    found, bad = brought("commonvoice", folder, tables=["train"])
    assert set(found) == {"cv_0"}
    assert bad == {"cv_1": "bad_field"}


def gigaspeech(folder: Path) -> Path:
    sound(folder / "audio/podcast/P0001/POD0000000001.opus", 3.0)

    def segment(number: int, begin: float, text: str, *subsets: str) -> dict[str, Any]:
        name = f"POD0000000001_S000000{number}"
        subsets = tuple(f"{{{subset}}}" for subset in subsets)
        return {"sid": name, "speaker": "N/A", "begin_time": begin, "end_time": begin + 0.5, "text_tn": text} | {
            "subsets": list(subsets)
        }

    audio = {
        "aid": "POD0000000001",
        "path": "audio/podcast/P0001/POD0000000001.opus",
        "sample_rate": 48000,
        "channels": 1,
        "duration": 3.0,
        "segments": [
            segment(0, 0.25, "AS THEY'RE LEAVING <COMMA> CAN KASH <QUESTIONMARK>", "XL", "L", "XS"),
            segment(1, 1.0, "<MUSIC>", "XL"),
            segment(2, 2.0, "FINE <PERIOD>", "DEV"),
        ],
    }
    (folder / "GigaSpeech.json").write_text(json.dumps({"dataset": "GigaSpeech", "audios": [audio, {"aid": "x"}]}))
    return folder


def test_gigaspeech(tmp_path: Path) -> None:
    folder = gigaspeech(tmp_path / "GigaSpeech")
    found, bad = brought("gigaspeech", folder)
    first, music, dev = (found[f"POD0000000001_S000000{number}"] for number in range(3))
    assert (first.text, first.offset, first.duration) == ("AS THEY'RE LEAVING, CAN KASH?", 0.25, 0.5)
    assert (music.text, music.extra["event"]) == (None, "music")
    assert (dev.split, dev.text) == ("dev", "FINE.")
    assert bad == {"x": "bad_field"}
    assert Path(first.audio_filepath).is_file()
    assert set(brought("gigaspeech", folder, subsets=["XS"])[0]) == {"POD0000000001_S0000000"}


def test_gigaspeech_json_that_is_broken_is_named(tmp_path: Path) -> None:
    (tmp_path / "GigaSpeech.json").write_text("{")
    with pytest.raises(InputError, match=r"GigaSpeech\.json"):
        list(GigaSpeechAdapter(GigaSpeechCorpus(kind="gigaspeech", path=str(tmp_path))).rows())


def vctk(folder: Path) -> Path:
    for name in ("p225_001_mic1", "p225_001_mic2", "p225_002_mic1"):
        sound(folder / f"wav48_silence_trimmed/p225/{name}.flac", rate=48000)
    sound(folder / "wav48_silence_trimmed/p315/p315_001_mic1.flac", rate=48000)
    table(folder / "txt/p225/p225_001.txt", "Please call Stella.")
    table(folder / "txt/p225/p225_003.txt", "Six spoons.")
    table(
        folder / "speaker-info.txt",
        "ID  AGE  GENDER  ACCENTS  REGION COMMENTS",
        "p225  23  F    English    Southern  England",
    )
    return folder


def test_vctk(tmp_path: Path) -> None:
    found, bad = brought("vctk", vctk(tmp_path / "VCTK-Corpus-0.92"), test={"speaker": ["p315"]})
    assert bad == {"p225_003": "missing"}
    first = found["p225_001"]
    assert (first.text, first.speaker, first.extra["region"]) == ("Please call Stella.", "p225", "Southern England")
    assert first.audio_filepath.endswith("_mic1.flac")
    assert found["p225_002"].text is None
    assert found["p315_001"].split == "test"
    old = tmp_path / "VCTK-Corpus"
    sound(old / "wav48/p225/p225_001.wav", rate=48000)
    table(old / "txt/p225/p225_001.txt", "Please call Stella.")
    table(old / "speaker-info.txt", "ID  AGE  GENDER  ACCENTS  REGION", "225  23  F    English")
    assert brought("vctk", old)[0]["p225_001"].extra["accent"] == "English"


def ljspeech(folder: Path) -> Path:
    for name in ("LJ001-0001", "LJ002-0001"):
        sound(folder / f"wavs/{name}.wav", rate=22050)
    table(
        folder / "metadata.csv",
        "LJ001-0001|Printing, in 1455|Printing, in fourteen fifty-five",
        "LJ002-0001|Two|Two",
        "LJ003-0001|Gone|Gone",
        "LJ004-0001",
    )
    return folder


def test_ljspeech(tmp_path: Path) -> None:
    found, bad = brought("ljspeech", ljspeech(tmp_path / "LJSpeech-1.1"), test={"book": ["LJ002"]})
    assert bad == {"LJ003-0001": "missing", "LJ004-0001": "bad_field"}
    first = found["LJ001-0001"]
    assert first.text == "Printing, in fourteen fifty-five"
    assert first.extra["raw_text"] == "Printing, in 1455"
    assert found["LJ002-0001"].split == "test"


def musiccaps(folder: Path) -> Path:
    sound(folder / "audio/-0Gj8-vB1q4.wav", 1.0)
    sound(folder / "audio/[-0SdAVK79lg]-[30-40].wav", 1.0)
    table(
        folder / "musiccaps-public.csv",
        "ytid,start_s,end_s,audioset_positive_labels,aspect_list,caption,author_id,is_balanced_subset,is_audioset_eval",
        '-0Gj8-vB1q4,30,40,/m/1,"[\'low quality\']","The low quality recording,',
        'with a ballad.",4,False,True',
        "-0SdAVK79lg,30,40,/m/1,[],A guitar.,0,False,False",
        "-0vPFx-wRRI,30,40,/m/1,[],Gone.,0,False,False",
    )
    return folder


def test_musiccaps(tmp_path: Path) -> None:
    folder = musiccaps(tmp_path / "musiccaps")
    found, bad = brought("musiccaps", folder)
    assert bad == {"-0vPFx-wRRI": "missing"}
    first = found["-0Gj8-vB1q4"]
    assert (first.kind, first.caption, first.split) == ("music", "The low quality recording,\nwith a ballad.", "test")
    assert found["-0SdAVK79lg"].split == "train"
    assert brought("musiccaps", folder, check="none", audio="whole")[0]["-0Gj8-vB1q4"].offset == 30.0


MADE = {
    "librispeech": librispeech,
    "librilight": librilight,
    "mls": mls,
    "commonvoice": commonvoice,
    "gigaspeech": gigaspeech,
    "vctk": vctk,
    "ljspeech": ljspeech,
    "musiccaps": musiccaps,
}


@pytest.mark.parametrize("kind", MADE)
def test_a_corpus_is_named_by_what_it_holds_and_not_by_where_it_lies(kind: str, tmp_path: Path) -> None:
    one, two = (MADE[kind](tmp_path / name) for name in ("one", "two"))
    assert content_id(config(kind, one)) == content_id(config(kind, two))
    transcript = next(path for path in sorted(two.rglob("*")) if path.suffix in (".txt", ".csv", ".tsv", ".json"))
    transcript.write_bytes(transcript.read_bytes().swapcase())
    assert content_id(config(kind, one)) != content_id(config(kind, two))


@pytest.mark.parametrize("kind", MADE)
def test_the_wrong_folder_is_refused_with_what_was_looked_for_and_found(kind: str, tmp_path: Path) -> None:
    table(tmp_path / "corpus" / "README.md", "something else")
    adapter = adapter_class(kind)
    with pytest.raises(InputError, match=r"looked for .*found README\.md") as refused:
        brought(kind, tmp_path / "corpus")
    assert adapter.layout in str(refused.value)
    with pytest.raises(InputError, match="does not exist"):
        brought(kind, tmp_path / "nowhere")


def test_a_folder_nearby_or_another_corpus_is_suggested(tmp_path: Path) -> None:
    folder = librispeech(tmp_path / "data" / "LibriSpeech")
    with pytest.raises(InputError, match=rf"Did you mean corpus\.path='{folder}'"):
        brought("librispeech", folder.parent)
    with pytest.raises(InputError, match=rf"Did you mean corpus\.path='{folder}'"):
        brought("librispeech", folder / "train-clean-100")
    with pytest.raises(InputError, match=r"did you mean corpus\.kind=ljspeech"):
        brought("librispeech", ljspeech(tmp_path / "LJSpeech-1.1"))
