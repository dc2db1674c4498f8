from pathlib import Path

import numpy as np
import pytest

from data.audio import load_audio
from data.corpus.espeak import synthesize
from data.errors import InputError
from eval.judges.clap import ClapJudge
from eval.judges.language_model import bigram_arpa
from eval.judges.recogniser import Recogniser, fit_recogniser, level, spell
from eval.judges.speaker import SpeakerEncoder
from model.clap import Clap, save_clap

TEXTS = ["one two three four", "four three two one", "two two one four", "three one four two"]
RATE = 16000


def speak(folder: Path, texts: list[str], voice: str = "en-US") -> dict[str, np.ndarray]:
    """id -> speech of a text, by the corpus' own synthesiser."""
    pytest.importorskip("espeakng_loader", reason="espeak-ng is not installed (extra: demo)")
    items = [
        {"path": f"{voice}-{index}.wav", "text": text, "voice": voice, "rate": 165, "pitch": 50}
        for index, text in enumerate(texts)
    ]
    root = folder / voice
    rows = synthesize(items, str(root), RATE, len(items), 1)
    return {str(index): load_audio(str(root / row["path"]), RATE) for index, row in enumerate(rows)}


def test_the_language_model_is_a_distribution_with_room_for_unseen_pairs() -> None:
    sections = bigram_arpa(TEXTS).split("\n\n")
    unigrams = [line.split() for line in sections[1].splitlines()[1:]]
    assert sum(10 ** float(row[0]) for row in unigrams) == pytest.approx(1.0, abs=1e-3)
    after_one = [line.split() for line in sections[2].splitlines() if line.split()[1:2] == ["one"]]
    seen = sum(10 ** float(row[0]) for row in after_one)
    backoff = next(10 ** float(row[2]) for row in unigrams if row[1] == "one")
    followers = {row[2] for row in after_one}
    unseen = sum(10 ** float(row[0]) for row in unigrams if row[1] not in followers)
    assert seen + backoff * unseen == pytest.approx(1.0, abs=1e-3)


def test_a_language_model_of_nothing_is_an_error() -> None:
    with pytest.raises(ValueError, match="at least one"):
        bigram_arpa(["", "  "])


def test_noise_and_level_depend_on_the_id_alone() -> None:
    wave = np.sin(np.arange(1600) / 9).astype(np.float32)
    assert np.array_equal(level(wave, "a"), level(wave * 0.01, "a"))
    assert not np.array_equal(level(wave, "a"), level(wave, "b"))
    assert level(np.zeros(0, np.float32), "a").size == round(0.4 * RATE)


def test_words_outside_the_dictionary_are_spelt_or_named(tmp_path: Path) -> None:
    pytest.importorskip("pocketsphinx")
    config = fit_recogniser(str(tmp_path), ["One, xqzzy!", "two 東京"])
    assert config["spelled_words"] == ["xqzzy"]
    assert config["unheard_words"] == ["東京"]
    assert f"xqzzy {spell('xqzzy')}\n" in (tmp_path / "words.dict").read_text()
    Recogniser(tmp_path)
    with pytest.raises(InputError, match="none of the 1 words"):
        fit_recogniser(str(tmp_path), ["東京"])
    with pytest.raises(InputError, match="fit_judges"):
        Recogniser(tmp_path / "nowhere")


def test_what_is_heard_is_right_and_depends_on_no_order(tmp_path: Path) -> None:
    pytest.importorskip("pocketsphinx")
    waves = speak(tmp_path, TEXTS)
    fit_recogniser(str(tmp_path), TEXTS)
    first, second = Recogniser(tmp_path), Recogniser(tmp_path)
    assert first.id == second.id
    assert first.id.startswith("pocketsphinx-")
    heard = {name: first.transcribe(wave, RATE, name) for name, wave in waves.items()}
    assert first.transcribe(np.zeros(0, np.float32), RATE, "empty") == second.transcribe(np.zeros(0), RATE, "empty")
    backwards = {name: second.transcribe(waves[name], RATE, name) for name in reversed(waves)}
    assert heard == backwards
    assert heard == {name: first.transcribe(wave, RATE, name) for name, wave in waves.items()}
    assert sum(heard[str(index)] == text for index, text in enumerate(TEXTS)) >= 3


def test_other_training_texts_make_another_judge(tmp_path: Path) -> None:
    pytest.importorskip("pocketsphinx")
    ids = []
    for name, texts in (("a", TEXTS), ("b", TEXTS[:2])):
        fit_recogniser(str(tmp_path / name), texts)
        ids.append(Recogniser(tmp_path / name).id)
    assert ids[0] != ids[1]


def test_one_voice_is_more_like_itself_than_like_another(tmp_path: Path) -> None:
    pytest.importorskip("resemblyzer")
    text = "one two three four three two one four"
    one, again = speak(tmp_path, [text, text + " two"], "en-US").values()
    (other,) = speak(tmp_path, [text], "en-US+f2").values()
    encoder = SpeakerEncoder()
    vectors = [encoder.embed(wave, RATE) for wave in (one, again, other)]
    assert np.array_equal(vectors[0], encoder.embed(one, RATE))
    assert np.linalg.norm(vectors[0]) == pytest.approx(1.0, abs=1e-6)
    assert vectors[0] @ vectors[1] > vectors[0] @ vectors[2] + 0.1
    assert encoder.id == SpeakerEncoder().id


def test_short_and_silent_waves_pass_or_say_why() -> None:
    pytest.importorskip("resemblyzer")
    encoder = SpeakerEncoder()
    noise = np.random.default_rng(0).normal(0, 0.1, 50).astype(np.float32)
    assert np.linalg.norm(encoder.embed(noise, RATE)) == pytest.approx(1.0, abs=1e-6)
    for wave in (np.zeros(0, np.float32), np.zeros(9000, np.float32)):
        with pytest.raises(ValueError, match="silence"):
            encoder.embed(wave, RATE)


def test_the_music_judge_embeds_both_sides_as_unit_vectors(tmp_path: Path) -> None:
    save_clap(Clap(["slow", "piano"]), str(tmp_path))
    judge = ClapJudge(tmp_path)
    wave = np.sin(np.arange(RATE) / 20).astype(np.float32)
    for vector in (judge.embed_audio(wave, RATE), judge.embed_audio(wave[:5], 8000), judge.embed_text("slow piano")):
        assert np.linalg.norm(vector) == pytest.approx(1.0, abs=1e-6)
    assert np.array_equal(judge.embed_audio(wave, RATE), ClapJudge(tmp_path).embed_audio(wave, RATE))
    assert judge.id.startswith("clap-1-")


def test_real_speech_is_embedded(real_audio: Path) -> None:
    pytest.importorskip("resemblyzer")
    path = next((real_audio / "digits" / "wav").rglob("*.wav"))
    assert SpeakerEncoder().embed(load_audio(str(path), RATE), RATE).shape == (256,)
