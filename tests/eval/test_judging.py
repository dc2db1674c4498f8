import numpy as np
import pytest

from data.audio import load_audio, write_wav
from eval import judging
from eval.judging import Heard, JudgeFolders, VocoderFolders, judge_chunk, judge_ids, locate, resynthesise_chunk
from eval.tasks.base import Answer, Listening, Request


class FakeJudge:
    id = "fake-1"

    def transcribe(self, wave, sample_rate, utterance_id):
        return f"{utterance_id} {len(wave)}"

    def embed(self, wave, sample_rate):
        return np.array([1.0, 0.0])

    embed_audio = embed

    def embed_text(self, caption):
        return np.array([0.0, 1.0])


@pytest.fixture
def fake_judges(monkeypatch):
    monkeypatch.setattr(judging, "load_judge", lambda role, folder: FakeJudge())


def test_each_kind_of_listening_reaches_its_judge(corpus, fake_judges):
    kinds = [
        Listening("w", "transcribe", "noise", utterance="s0"),
        Listening("v", "embed_voice", "noise", utterance="s0"),
        Listening("m", "embed_music", "noise", utterance="m0"),
        Listening("c", "embed_caption", "noise", text="a tune"),
    ]
    heard = [locate(item, corpus, {}, "/nowhere") for item in kinds]
    verdicts = dict(judge_chunk(JudgeFolders(), heard))
    assert verdicts["w"].text == "noise 3200"
    assert verdicts["v"].vector == verdicts["m"].vector == (1.0, 0.0)
    assert verdicts["c"].vector == (0.0, 1.0)


def test_what_was_not_answered_or_cannot_be_read_fails_alone(corpus, fake_judges, tmp_path):
    answers = {"failed": Answer(error="Timeout: x"), "lost": Answer(audio="audio/lost.wav")}
    items = [
        locate(Listening(key, "transcribe", "n", answer=key), corpus, answers, str(tmp_path))
        for key in ("failed", "lost", "never")
    ]
    verdicts = dict(judge_chunk(JudgeFolders(), [*items, Heard("ok", "transcribe", "n", path=corpus.audio("s1"))]))
    assert verdicts["failed"].error == "Timeout: x"
    assert verdicts["lost"].error.startswith("missing")
    assert verdicts["never"].error == "no answer"
    assert verdicts["ok"].text == "n 3200"


def test_an_answer_without_sound_has_no_words_and_no_voice_but_a_recording_without_sound_is_a_failure(
    corpus, fake_judges, tmp_path
):
    write_wav(str(tmp_path / "mute.wav"), np.zeros(0), 16000)
    write_wav(corpus.audio("s0"), np.zeros(0), 16000)
    answers = {"mute": Answer(audio="mute.wav")}
    items = [
        Listening("words", "transcribe", "n", answer="mute"),
        Listening("voice", "embed_voice", "n", answer="mute"),
        Listening("truth", "transcribe", "n", utterance="s0"),
    ]
    heard = [locate(item, corpus, answers, str(tmp_path)) for item in items]
    verdicts = dict(judge_chunk(JudgeFolders(), heard))
    assert (verdicts["words"].text, verdicts["words"].error) == ("", None)
    assert verdicts["voice"].error.startswith("empty")
    assert verdicts["truth"].error.startswith("empty")


def test_a_judge_that_was_never_fitted_is_named(corpus):
    verdicts = judge_chunk(JudgeFolders(), [Heard("k", "transcribe", "n", path=corpus.audio("s1"))])
    assert "no recogniser judge" in verdicts[0][1].error


def test_judge_ids_name_those_that_listened(fake_judges):
    assert set(judge_ids(JudgeFolders(), {"transcribe"})) == {"words", "exact", "recogniser"}
    assert set(judge_ids(JudgeFolders(), set())) == {"words", "exact"}


def test_codes_are_made_audible_by_vocoder_or_tokenizer(monkeypatch, tmp_path):
    class Vocoder:
        sample_rate = 16000

        def synthesize(self, streams, voice):
            if voice is None:
                raise KeyError("no voice")
            return np.full(len(streams["unit"]) * 100, 0.1, np.float32)

    class Tokenizer:
        sample_rate, num_codebooks = 16000, 2

        def decode(self, codes_TK):
            return np.full(len(codes_TK) * 100, 0.1, np.float32)

    monkeypatch.setattr(judging, "_load_vocoder", lambda folder: Vocoder())
    monkeypatch.setattr(judging, "_load_tokenizer", lambda folder: Tokenizer())
    codes = np.arange(4, dtype=np.int16)

    def save(key, wav):
        (tmp_path / key).write_bytes(wav)
        return key

    requests = [
        Request("u", "resynthesise", voice="v", stream="unit", codes=codes),
        Request("bad", "resynthesise", stream="unit", codes=codes),
        Request("m", "resynthesise", stream="music", codes=codes),
    ]
    answers = dict(resynthesise_chunk(VocoderFolders({"unit": "a"}, {"unit": "b", "music": "c"}), requests, save))
    assert len(load_audio(str(tmp_path / "u"), 16000)) == 400
    assert len(load_audio(str(tmp_path / "m"), 16000)) == 200
    assert answers["bad"].error.startswith("KeyError")
