from pathlib import Path

import numpy as np
import pytest

from data.audio import load_audio
from data.corpus.espeak import synthesize
from data.corpus.espeak_process import phone_spans, trim_end, word_spans
from data.errors import InputError

pytest.importorskip("espeakng_loader")


def items(voice: str = "en-US+f2", count: int = 3) -> list[dict[str, object]]:
    text = "the young doctor found seven green boxes"
    return [
        {"path": f"audio/{index}.wav", "text": text, "voice": voice, "rate": 160 + index, "pitch": 50}
        for index in range(count)
    ]


def test_speech_has_the_stated_length_and_a_span_for_every_word(tmp_path: Path) -> None:
    for item, made in zip(items(), synthesize(items(), str(tmp_path), 16000, 10, 1), strict=True):
        wave = load_audio(str(tmp_path / made["path"]), 16000)
        assert len(wave) / 16000 == pytest.approx(made["duration"], abs=1e-3)
        assert 0.05 < np.abs(wave).max() <= 1.0
        assert [word for word, _, _ in made["words"]] == item["text"].split()
        bounds = [time for _, start, end in made["words"] for time in (start, end)]
        assert bounds == sorted(bounds)
        assert bounds[0] >= 0.0
        assert bounds[-1] <= made["duration"]


def test_the_same_shards_give_the_same_bytes_however_many_work_at_once(tmp_path: Path) -> None:
    for name, workers in (("one", 1), ("two", 2)):
        synthesize(items("en-US+klatt4", 4), str(tmp_path / name), 16000, 2, workers)
    for index in range(4):
        one, two = (tmp_path / name / f"audio/{index}.wav" for name in ("one", "two"))
        assert one.read_bytes() == two.read_bytes()


def test_a_finished_shard_is_not_made_again(tmp_path: Path) -> None:
    first = synthesize(items(), str(tmp_path), 16000, 10, 1)
    (tmp_path / "audio/0.wav").write_bytes(b"kept")
    assert synthesize(items(), str(tmp_path), 16000, 10, 1) == first
    assert (tmp_path / "audio/0.wav").read_bytes() == b"kept"


@pytest.mark.parametrize("voice", ["en-XX", "en-US+f99"])
def test_an_unknown_voice_is_a_bad_recipe_that_names_it(tmp_path: Path, voice: str) -> None:
    with pytest.raises(InputError, match=voice.replace("+", r"\+")):
        synthesize(items(voice, 1), str(tmp_path), 16000, 10, 1)


def test_phones_come_in_ipa_and_change_no_byte_of_the_audio(tmp_path: Path) -> None:
    plain = synthesize(items(count=2), str(tmp_path / "plain"), 16000, 10, 1)
    told = synthesize(items(count=2), str(tmp_path / "told"), 16000, 10, 1, phones=True)
    assert [{key: value for key, value in made.items() if key != "phones"} for made in told] == plain
    for made in told:
        path = made["path"]
        assert (tmp_path / "plain" / path).read_bytes() == (tmp_path / "told" / path).read_bytes()
        names = [name for name, _, _ in made["phones"]]
        assert names[:3] == ["ð", "ə", "j"]  # the young
        assert names[-5:] == ["ɑː", "k", "s", "ᵻ", "z"]  # boxes
        bounds = [time for _, start, end in made["phones"] for time in (start, end)]
        assert bounds == sorted(bounds)
        assert 0 <= bounds[0] < bounds[-1] <= made["duration"]
        word_start = made["words"][3][1]  # found
        assert min(abs(start - word_start) for name, start, _ in made["phones"] if name == "f") < 0.03


def test_phones_last_until_the_next_event_and_pauses_have_no_name() -> None:
    assert phone_spans([("a", 0.0), ("", 0.2), ("b", 0.3), ("c", 0.9)], 0.5) == [["a", 0.0, 0.2], ["b", 0.3, 0.5]]


def test_words_that_were_merged_leave_no_spans() -> None:
    assert word_spans("out of it", [0.0, 0.2], 1.0) is None
    assert word_spans("out", [0.1], 1.0) == [["out", 0.1, 1.0]]
    assert word_spans("late word", [0.1, 1.4], 1.0) == [["late", 0.1, 1.0], ["word", 1.0, 1.0]]


def test_only_the_silence_at_the_end_is_cut() -> None:
    samples_N = np.concatenate([np.zeros(100), np.full(100, 9000), np.zeros(50_000)]).astype(np.int16)
    assert len(trim_end(samples_N, 1000)) == 260
    assert len(trim_end(np.zeros(10, np.int16), 1000)) == 10
