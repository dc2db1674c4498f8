"""Spoken instructions out of written ones: speech quadruples as SpeechGPT has them, and dialogues as AnyInstruct has.

The result is records linked by `response`: a token store keeps them, chain-of-modality and dialogue grammars show
them. Whoever speaks is handed in: anything that turns texts into codes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from data import storage
from data.mixture import draw_rng
from data.store import Record

RESPONSE_WORDS = 35  # SpeechGPT keeps responses that have fewer


@dataclass(frozen=True)
class Sound:
    """Codes of a recording by stream (flat, frame-major), and its length."""

    streams: Mapping[str, np.ndarray]
    duration_s: float = 0.0

    @property
    def is_empty(self) -> bool:
        """Whether there is nothing to hear."""
        return not any(len(codes) for codes in self.streams.values())


# (text, voice) of every utterance -> its sound, in the same order; an empty sound where one could not be spoken.
Speak = Callable[[Sequence[tuple[str, str]]], Sequence[Sound]]
# captions -> their music, in the same order.
Play = Callable[[Sequence[str]], Sequence[Sound]]


@dataclass(frozen=True)
class Built:
    """Records in the order of what they were made of, and what was left out: {id, reason, detail}."""

    records: list[Record]
    dropped: list[dict[str, str]]


def build_quadruples(
    pairs: Iterable[tuple[str, str]],
    speak: Speak,
    voices: Sequence[str],
    answer_voice: str,
    response_words: int = RESPONSE_WORDS,
    seed: int = 0,
) -> Built:
    """(instruction, response) texts -> a spoken question that leads to a spoken answer, for each pair.

    Questions are spoken by voices drawn with the seed, answers by `answer_voice`. Pairs are dropped whose response
    has `response_words` words or more, whose text is empty, or of which one side could not be spoken.
    """
    turns = (
        Dialogue([Turn("user", asked, spoken=True), Turn("assistant", answered, spoken=True)], response_words)
        for asked, answered in pairs
    )
    parties = (Speaker("user", tuple(voices)), Speaker("assistant", (answer_voice,), answers=True))
    return build_dialogues(turns, parties, speak, seed=seed)


@dataclass(frozen=True)
class Turn:
    """One turn as written. `spoken`: yes, no, or drawn where None; `caption` asks for music to go with it."""

    party: str
    text: str
    spoken: bool | None = None
    caption: str | None = None


@dataclass(frozen=True)
class Dialogue:
    """Turns in order. Answers have fewer than `response_words` words (None: any number)."""

    turns: Sequence[Turn]
    response_words: int | None = None


@dataclass(frozen=True)
class Speaker:
    """A party of dialogues and the voices it may have: one of them throughout a dialogue."""

    name: str
    voices: tuple[str, ...]
    answers: bool = False


@dataclass
class _Plan:
    """A dialogue with what is to be heard of it: indices into the lists that are spoken and played at once."""

    identity: str
    turns: Sequence[Turn]
    spoken: dict[int, int] = field(default_factory=dict)
    played: dict[int, int] = field(default_factory=dict)
    voices: dict[str, str] = field(default_factory=dict)


def build_dialogues(
    dialogues: Iterable[Dialogue],
    parties: Sequence[Speaker],
    speak: Speak,
    play: Play | None = None,
    spoken_probability: float = 0.5,
    seed: int = 0,
) -> Built:
    """Dialogues of any number of parties -> records, each leading to the next turn's; chosen turns are spoken.

    `extra` of a record has its `party` and `turn`. Voices and which turns are spoken depend on (seed, dialogue) alone.
    All that is spoken goes to `speak` at once, all music to `play`. A dialogue is dropped whole, and said to be, where
    a turn is empty, of an unknown party, too long, or could not be heard, and where an earlier one has the same turns.
    """
    by_name = {party.name: party for party in parties}
    plans: list[_Plan] = []
    dropped: list[dict[str, str]] = []
    texts: list[tuple[str, str]] = []
    captions: list[str] = []
    seen: set[str] = set()
    for dialogue in dialogues:
        plan = _Plan(_identity(dialogue.turns), dialogue.turns)
        problem = _problem(dialogue, by_name, play is not None)
        if not problem and plan.identity in seen:
            problem = {"reason": "duplicate", "detail": "an earlier dialogue has the same turns, and is kept"}
        seen.add(plan.identity)
        if problem:
            dropped.append({"id": plan.identity, **problem})
            continue
        _choose(plan, by_name, spoken_probability, seed, texts, captions)
        plans.append(plan)
    sounds = list(speak(texts)) if texts else []
    music = list(play(captions)) if play is not None and captions else []
    if len(sounds) != len(texts) or len(music) != len(captions):
        raise ValueError(
            f"{len(texts)} texts gave {len(sounds)} sounds, {len(captions)} captions {len(music)}: one each is expected"
        )
    records: list[Record] = []
    for plan in plans:
        silent = [i for i, at in plan.spoken.items() if sounds[at].is_empty]
        silent += [i for i, at in plan.played.items() if music[at].is_empty]
        if silent:
            detail = f"turn {min(silent)} {plan.turns[min(silent)].text[:60]!r} gave no sound"
            dropped.append({"id": plan.identity, "reason": "silent", "detail": detail})
        else:
            records += _records(plan, sounds, music)
    return Built(records, dropped)


def _problem(dialogue: Dialogue, parties: Mapping[str, Speaker], has_music: bool) -> dict[str, str] | None:
    """Why a dialogue cannot be used."""
    if len(dialogue.turns) < 2:
        return {"reason": "too_short", "detail": f"{len(dialogue.turns)} turns, expected two or more"}
    for index, turn in enumerate(dialogue.turns):
        words = len(turn.text.split())
        if turn.party not in parties:
            return {"reason": "unknown_party", "detail": f"turn {index}: {turn.party!r} is none of {sorted(parties)}"}
        if not words:
            return {"reason": "empty_text", "detail": f"turn {index} has no words"}
        if turn.caption and not has_music:
            return {"reason": "no_music", "detail": f"turn {index} asks for music and nothing was given to play it"}
        limit = dialogue.response_words
        if limit is not None and parties[turn.party].answers and words >= limit:
            return {"reason": "too_long", "detail": f"turn {index} has {words} words, expected fewer than {limit}"}
    return None


def _choose(
    plan: _Plan,
    parties: Mapping[str, Speaker],
    spoken_probability: float,
    seed: int,
    texts: list[tuple[str, str]],
    captions: list[str],
) -> None:
    """Draw voices and spoken turns, and put what is to be heard on the lists. A turn with music is not spoken."""
    rng = draw_rng(seed, "dialogue", plan.identity, 0)
    for party in parties.values():
        plan.voices[party.name] = party.voices[int(rng.integers(len(party.voices)))]
    for index, turn in enumerate(plan.turns):
        drawn = bool(rng.random() < spoken_probability)
        if turn.caption:
            plan.played[index] = len(captions)
            captions.append(turn.caption)
        elif drawn if turn.spoken is None else turn.spoken:
            plan.spoken[index] = len(texts)
            texts.append((turn.text, plan.voices[turn.party]))


def _records(plan: _Plan, sounds: Sequence[Sound], music: Sequence[Sound]) -> Iterator[Record]:
    """The turns as linked records, the first one first."""
    made: list[Record] = []
    following: Record | None = None
    for index in reversed(range(len(plan.turns))):
        turn = plan.turns[index]
        sound = sounds[plan.spoken[index]] if index in plan.spoken else None
        sound = music[plan.played[index]] if index in plan.played else sound
        extra = {"party": turn.party, "turn": index} | ({"response": following.id} if following else {})
        record = Record(
            id=f"{plan.identity}-{index}",
            text=turn.text.strip(),
            speaker=plan.voices[turn.party] if index in plan.spoken else None,
            caption=turn.caption,
            kind="music" if index in plan.played else "speech",
            duration_s=sound.duration_s if sound else 0.0,
            extra=extra,
            streams={name: np.asarray(codes) for name, codes in sound.streams.items()} if sound else {},
        )
        following = replace(record, response=following)
        made.append(following)
    return reversed(made)


def _identity(turns: Sequence[Turn]) -> str:
    """A name by content."""
    spelt = "\0".join(f"{turn.party}\0{turn.text}\0{turn.caption}" for turn in turns)
    return storage.hash_bytes(spelt.encode())[:16]
