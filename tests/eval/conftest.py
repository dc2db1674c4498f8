"""A small test split with real wav files, and evidence as a flawless or a failing model would give it."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from data.audio import write_wav
from data.manifest import Utterance
from eval.corpus import EvalCorpus
from eval.tasks import TASKS
from eval.tasks.base import Answer, Evidence, Verdict

JUDGES = {"words": "words-1", "exact": "exact-1", "recogniser": "ear-1", "speaker": "voice-1", "clap": "clap-1"}
TASK_NAMES = frozenset({"asr", "tts", "text_to_music", "music_to_caption", "s2s", "s2t", "t2t"})
RATE_HZ = 16000


def _speech(identity: str, text: str, speaker: str, **extra: object) -> Utterance:
    return Utterance(identity, f"{identity}.wav", 0.2, text=text, speaker=speaker, split="test", extra=dict(extra))


def _utterances() -> list[Utterance]:
    found = []
    for number in range(8):
        part = "digits" if number % 2 else "sentences"
        text = f"word{number} two three {'nine' if number % 2 else 'doctor'}"
        speaker = f"voice{number // 4}"
        found.append(_speech(f"s{number}", text, speaker, part=part, condition="seen", tts_test=number != 7))
    found.append(_speech("n0", "four five", "new", part="digits", condition="new_voice"))
    found.append(_speech("x0", "six", "scot", part="sentences", condition="new_accent"))
    for number, answer in enumerate(("five", "one two three")):
        found.append(_speech(f"q{number}", f"what {number}", "voice0", part="questions", response=f"a{number}"))
        found.append(_speech(f"a{number}", answer, "voice0", part="answers"))
    for number in range(3):
        found.append(
            Utterance(f"m{number}", f"m{number}.wav", 0.2, kind="music", caption=f"tune {number}", split="test")
        )
    return found


@pytest.fixture
def corpus(tmp_path: Path) -> EvalCorpus:
    """Ten read utterances, two questions, three clips; units and codes for all of them."""
    rng = np.random.default_rng(0)
    utterances = _utterances()
    for utterance in utterances:
        write_wav(str(tmp_path / utterance.audio_filepath), rng.normal(0, 0.1, RATE_HZ // 5), RATE_HZ)
    codes = {u.id: {"music" if u.kind == "music" else "unit": np.arange(4, dtype=np.int16)} for u in utterances}
    return EvalCorpus(
        manifest=str(tmp_path / "manifest.jsonl"),
        utterances={utterance.id: utterance for utterance in utterances},
        codes=codes,
        tasks=TASK_NAMES,
        models=("final", "before_lora"),
    )


@pytest.fixture
def flawless() -> Callable[[EvalCorpus], Evidence]:
    """Evidence of a model that answers everything right, and of judges that hear everything right."""

    def build(corpus: EvalCorpus) -> Evidence:
        requests = [request for task in TASKS.values() for request in task.requests(corpus)]
        answers = {request.key: Answer(text=_right_text(corpus, request), audio="audio/a.wav") for request in requests}
        listenings = [listening for task in TASKS.values() for listening in task.listenings(corpus)]
        return Evidence(answers, {item.key: _right_verdict(corpus, item) for item in listenings}, JUDGES)

    return build


def _right_text(corpus: EvalCorpus, request) -> str | None:
    identity = request.key.rpartition("/")[2]
    utterance = corpus.utterances.get(identity)
    if utterance is None:  # a control was asked nothing, so nothing is right
        return "nothing"
    response = utterance.extra.get("response")
    return corpus.utterances[response].text if response else (utterance.caption or utterance.text)


def _right_verdict(corpus: EvalCorpus, item) -> Verdict:
    identity = item.key.rpartition("/")[2]
    utterance = corpus.utterances.get(identity)
    if item.kind == "transcribe":
        response = utterance and utterance.extra.get("response")
        return Verdict(text=corpus.utterances[response].text if response else (utterance.text if utterance else "no"))
    name = utterance.speaker if item.kind == "embed_voice" else utterance.id
    vector = np.zeros(64)
    vector[sum(name.encode()) % 64] = 1.0
    return Verdict(vector=tuple(vector))
