"""The built-in corpus: what is said by whom in which split, planned from the seed alone, then made."""

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np

from data import storage
from data.audio import write_wav
from data.config import BuiltinCorpus
from data.corpus.espeak import synthesize
from data.corpus.music import caption_of, sample_attributes, split_combinations, synthesize_music
from data.corpus.questions import draw_questions
from data.corpus.texts import SplitTexts, digit_string, sentence
from data.errors import InputError
from data.manifest import Utterance
from data.timing import samples_to_seconds, written_seconds

RATES_WPM = (150, 185)
PITCHES = (42, 58)


@dataclass(frozen=True)
class Spoken:
    """One utterance to be spoken. `extra` goes into the manifest: part, condition, tts_test, response, question."""

    id: str
    text: str
    voice: str
    split: str
    extra: dict[str, Any] = field(default_factory=dict)


def plan_speech(config: BuiltinCorpus, seed: int) -> list[Spoken]:
    """Every spoken utterance. Texts of train, dev and test are pairwise disjoint, but for answers of one or two words.

    Raises InputError when the vocabulary has not so many distinct texts.
    """
    speech, texts = config.speech, SplitTexts()
    conditions = {
        "seen": speech.voices,
        "new_voice": speech.new_voices,
        "new_accent": speech.new_accent_voices,
    }
    planned: list[Spoken] = []
    try:
        for condition, voices in conditions.items():
            planned += _test_condition(config, condition, voices, seed, texts)
        planned += _questions(config, "test", config.questions.test_questions, seed, texts)
        planned += _readings(config, "dev", "dev", speech.dev_utterances, speech.voices, seed, texts)
        planned += _questions(config, "dev", config.questions.dev_questions, seed, texts)
        planned += _readings(config, "train", "train", speech.train_utterances, speech.voices, seed, texts)
        planned += _questions(config, "train", config.questions.train_questions, seed, texts)
    except ValueError as error:
        raise InputError(f"corpus: {error}") from None
    return planned


def make_speech(config: BuiltinCorpus, seed: int, folder: str) -> list[Utterance]:
    """Speak the plan into `folder`/audio. Raises what `synthesize` raises."""
    planned = plan_speech(config, seed)
    items = [_item(spoken, seed) for spoken in planned]
    made = synthesize(items, folder, config.sample_rate, config.shard_utterances, config.num_workers, config.phones)
    return [
        Utterance(
            id=spoken.id,
            audio_filepath=result["path"],
            duration=result["duration"],
            text=spoken.text,
            speaker=spoken.voice,
            lang="en",
            words=None if result["words"] is None else tuple(tuple(word) for word in result["words"]),
            split=spoken.split,
            extra={**spoken.extra, **({"phones": result["phones"]} if config.phones else {})},
        )
        for spoken, result in zip(planned, made, strict=True)
    ]


def make_music(config: BuiltinCorpus, seed: int, folder: str) -> Iterator[Utterance]:
    """Write the music clips into `folder`/audio. The splits share no combination of attributes."""
    music = config.music
    combinations = split_combinations(seed)
    counts = {"test": music.test_clips, "dev": music.dev_clips, "train": music.train_clips}
    for split, count in counts.items():
        for index in range(count):
            identity = f"{split}-music-{index:05d}"
            rng = np.random.default_rng(int(storage.hash_bytes(f"{seed} {identity}".encode())[:16], 16))
            # The first clips go through every combination of the split, so none is missing by chance.
            whole = combinations[split]
            attributes = dict(whole[index]) if index < len(whole) else sample_attributes(rng, whole)
            wave = synthesize_music(attributes, rng, music.duration_s, config.sample_rate)
            path = f"audio/{identity}.wav"
            write_wav(storage.join(folder, path), wave, config.sample_rate)
            yield Utterance(
                id=identity,
                audio_filepath=path,
                duration=written_seconds(samples_to_seconds(len(wave), config.sample_rate)),
                kind="music",
                caption=caption_of(attributes),
                split=split,
                extra={"part": "music", **attributes},
            )


def _test_condition(
    config: BuiltinCorpus, condition: str, voices: Sequence[str], seed: int, texts: SplitTexts
) -> list[Spoken]:
    speech = config.speech
    name = f"test-{condition}"
    spoken = _readings(config, "test", name, speech.test_utterances, voices, seed, texts, condition=condition)
    if condition == "seen":
        chosen = _quotas(min(speech.tts_utterances, speech.test_utterances), speech.digit_fraction)
        for part, count in chosen.items():
            for item in [item for item in spoken if item.extra["part"] == part][:count]:
                item.extra["tts_test"] = True
    return spoken


def _readings(
    config: BuiltinCorpus,
    split: str,
    name: str,
    count: int,
    voices: Sequence[str],
    seed: int,
    texts: SplitTexts,
    **extra: Any,
) -> list[Spoken]:
    """Sentences and digit strings in the corpus' own proportion, every voice equally often in each."""
    rng = random.Random(f"{seed} {name}")
    makers = {"sentences": partial(sentence, rng), "digits": partial(digit_string, rng)}
    spoken: list[Spoken] = []
    for part, quota in _quotas(count, config.speech.digit_fraction).items():
        turns = _turns(voices, quota, rng)
        for index, text in enumerate(texts.draw(split, quota, makers[part])):
            identity = f"{name}-{part}-{index:05d}"
            spoken.append(Spoken(identity, text, turns[index], split, {"part": part, **extra}))
    return spoken


def _questions(config: BuiltinCorpus, split: str, count: int, seed: int, texts: SplitTexts) -> list[Spoken]:
    """Question and answer by turns, both in one voice."""
    rng = random.Random(f"{seed} {split} questions")
    turns = _turns(config.speech.voices, count, rng)
    spoken: list[Spoken] = []
    for index, question in enumerate(draw_questions(split, count, rng, texts)):
        answer_id = f"{split}-answers-{index:05d}"
        extra = {"part": "questions", "question": question.kind, "response": answer_id}
        spoken.append(Spoken(f"{split}-questions-{index:05d}", question.text, turns[index], split, extra))
        spoken.append(Spoken(answer_id, question.answer, turns[index], split, {"part": "answers"}))
    return spoken


def _quotas(count: int, digit_fraction: float) -> dict[str, int]:
    digits = round(count * digit_fraction)
    return {"sentences": count - digits, "digits": digits}


def _turns(voices: Sequence[str], count: int, rng: random.Random) -> list[str]:
    """`count` voices, each equally often to within one, in an order of chance."""
    turns: list[str] = []
    while len(turns) < count:
        turns += rng.sample(list(voices), len(voices))
    return turns[:count]


def _item(spoken: Spoken, seed: int) -> dict[str, Any]:
    rng = random.Random(f"{seed} {spoken.id}")
    return {
        "path": f"audio/{spoken.id}.wav",
        "text": spoken.text,
        "voice": spoken.voice,
        "rate": rng.randint(*RATES_WPM),
        "pitch": rng.randint(*PITCHES),
    }
