"""The test split as the benchmark tasks see it."""

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

import numpy as np

from data.manifest import Utterance, resolve_audio

SPEECH_PARTS = (None, "sentences", "digits")


@dataclass(frozen=True)
class EvalCorpus:
    """Test utterances by id, their true codes by stream, and what the evaluated model can be asked.

    `tasks` are the grammar's; `voices` those the model speaks with, None where not known; `has_vocoder` says
    whether codes can be made audible here.
    """

    manifest: str
    utterances: Mapping[str, Utterance]
    codes: Mapping[str, Mapping[str, np.ndarray]] = field(default_factory=dict)
    tasks: frozenset[str] = frozenset()
    models: tuple[str, ...] = ("final",)
    voices: frozenset[str] | None = None
    has_vocoder: bool = True
    seed: int = 1
    max_utterances: int | None = None

    def audio(self, identity: str) -> str:
        """Path or URL of the true recording."""
        return resolve_audio(self.manifest, self.utterances[identity])

    def speech(self, condition: str) -> list[Utterance]:
        """Transcribed speech of one condition (a corpus that names none has `seen` alone)."""
        return self.limit(
            utterance
            for utterance in self.utterances.values()
            if utterance.kind == "speech"
            and (utterance.text or "").strip()
            and utterance.extra.get("part") in SPEECH_PARTS
            and (utterance.extra.get("condition") or "seen") == condition
        )

    def spoken(self) -> list[Utterance]:
        """What speech synthesis is judged on: marked `tts_test`, or everything where nothing is marked."""
        candidates = [u for u in self.speech_unlimited("seen") if u.speaker and self.can_speak(u.speaker)]
        marked = [utterance for utterance in candidates if utterance.extra.get("tts_test")]
        return self.limit(marked or candidates)

    def music(self) -> list[Utterance]:
        """Captioned music clips."""
        return self.limit(u for u in self.utterances.values() if u.kind == "music" and u.caption)

    def questions(self) -> list[tuple[Utterance, Utterance]]:
        """Questions with their answers."""
        asked = [u for u in self.utterances.values() if u.extra.get("response") in self.utterances and u.text]
        return [(u, self.utterances[u.extra["response"]]) for u in self.limit(asked)]

    def can_speak(self, voice: str | None) -> bool:
        """Whether the model has a voice of this name, as far as known."""
        return voice is not None and (self.voices is None or voice in self.voices)

    def speech_unlimited(self, condition: str) -> list[Utterance]:
        """As `speech`, whatever `max_utterances` says."""
        everything = EvalCorpus(self.manifest, self.utterances)
        return everything.speech(condition)

    def limit(self, utterances: Iterable[Utterance]) -> list[Utterance]:
        """At most `max_utterances`, drawn by the hash of the id so that no part is preferred; sorted by id."""
        drawn = sorted(utterances, key=lambda u: hashlib.sha256(u.id.encode()).digest())[: self.max_utterances]
        return sorted(drawn, key=lambda u: u.id)


def parts(utterance: Utterance) -> tuple[str, ...]:
    """The parts of a mixed line in which an utterance also counts."""
    part = utterance.extra.get("part")
    return (str(part),) if part in ("sentences", "digits") else ()
