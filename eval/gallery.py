"""The samples that a report plays: drawn evenly over the sorted ids, never by how well they went."""

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import numpy as np

from data.audio import AudioError, wav_bytes
from data.manifest import Utterance
from eval.corpus import EvalCorpus
from eval.plots import audio_url, spectrogram
from eval.samples import Sample, ordered

Item = TypeVar("Item")
Wave = tuple[np.ndarray, int]
Hear = Callable[[str | None, str | None], Wave]
ASR_ROWS = 8
MAX_CHARACTERS = 160  # an untrained model repeats one word up to its limit


def spread(items: Sequence[Item], count: int) -> list[Item]:
    """`count` of `items`, evenly spaced from the first on; all where there are fewer."""
    count = min(count, len(items))
    return [items[index * len(items) // count] for index in range(count)]


def shares(available: Sequence[int], total: int) -> list[int]:
    """How many of each kind, out of `available`, make up `total`: turn by turn, the first kind twice a turn."""
    taken = [0] * len(available)
    turn = [0, *range(len(available))]
    while sum(taken) < min(total, sum(available)):
        for kind in turn:
            if taken[kind] < available[kind] and sum(taken) < total:
                taken[kind] += 1
    return taken


def build_gallery(corpus: EvalCorpus, samples: Sequence[Sample], hear: Hear, count: int) -> list[dict[str, Any]]:
    """Cards with players: [{title, cards: [{title, texts: [(label, text)], players: [{label, audio, picture}]}]}].

    `hear(utterance id, None)` gives a true recording, `hear(None, path)` a file of the run folder, as (wave, rate).
    """
    by_line: dict[tuple[str, str], Sample] = {(sample.line, sample.id): sample for sample in samples}
    lines = {"Speech synthesis": "tts_wer", "Music": "clap_generated", "Chain of modality": "com_s2s_wer"}
    cards_of = {"Speech synthesis": _speech_card, "Music": _music_card, "Chain of modality": _chain_card}
    ids = {title: [s.id for s in ordered(samples) if s.line == line] for title, line in lines.items()}
    taken = shares([len(found) for found in ids.values()], count)
    sections = []
    for (title, found), number in zip(ids.items(), taken, strict=True):
        chosen = [corpus.utterances[identity] for identity in spread(found, number)]
        cards = [cards_of[title](corpus, by_line, hear, utterance) for utterance in chosen]
        if cards:
            sections.append({"title": title, "cards": cards})
    return sections


def transcripts(samples: Sequence[Sample]) -> list[Sample]:
    """Recognised utterances for the report: some drawn evenly, then those with the most errors."""
    heard = [sample for sample in ordered(samples) if sample.line == "asr_wer"]
    drawn = spread(heard, ASR_ROWS)
    worst = sorted((s for s in heard if s.errors and s not in drawn), key=lambda s: -(s.errors or 0))
    return drawn + worst[:ASR_ROWS]


def _speech_card(
    corpus: EvalCorpus, by_line: dict[tuple[str, str], Sample], hear: Hear, utterance: Utterance
) -> dict[str, Any]:
    texts = [("text", utterance.text)]
    players = [_player("ground truth", hear, utterance.id, None)]
    for label, line in (("resynthesis", "tts_wer_resynthesis"), ("generated", "tts_wer")):
        sample = by_line.get((line, utterance.id))
        if sample is not None:
            players.append(_player(label, hear, None, sample.audio))
            texts.append((f"{label}, as heard", _heard(sample)))
    return {"title": f"{utterance.id} · {utterance.speaker}", "texts": texts, "players": players}


def _music_card(
    corpus: EvalCorpus, by_line: dict[tuple[str, str], Sample], hear: Hear, utterance: Utterance
) -> dict[str, Any]:
    texts = [("caption", utterance.caption)]
    players = []
    for label, line in (
        ("ground truth", "clap_matched"),
        ("resynthesis", "clap_resynthesis"),
        ("generated", "clap_generated"),
    ):
        sample = by_line.get((line, utterance.id))
        if sample is not None:
            true = utterance.id if line == "clap_matched" else None
            players.append(_player(f"{label} · {sample.score:.2f}", hear, true, sample.audio))
    caption = by_line.get(("caption_exact", utterance.id))
    if caption is not None:
        texts.append(("captioned as", _heard(caption)))
    return {"title": utterance.id, "texts": texts, "players": players}


def _chain_card(
    corpus: EvalCorpus, by_line: dict[tuple[str, str], Sample], hear: Hear, utterance: Utterance
) -> dict[str, Any]:
    spoken = by_line[("com_s2s_wer", utterance.id)]
    texts = [("question", utterance.text), ("right answer", spoken.reference), ("answer, as heard", _heard(spoken))]
    for label, line in (("speech to text", "com_s2t_exact"), ("text to text", "com_t2t_exact")):
        sample = by_line.get((line, utterance.id))
        if sample is not None:
            texts.append((label, _heard(sample)))
    players = [_player("question", hear, utterance.id, None), _player("answer", hear, None, spoken.audio)]
    return {"title": f"{utterance.id} · {utterance.speaker}", "texts": texts, "players": players}


def _heard(sample: Sample) -> str:
    said = f"failed: {sample.error}" if sample.error else (sample.hypothesis or "(nothing)")
    return said if len(said) <= MAX_CHARACTERS else said[:MAX_CHARACTERS] + " …"


def _player(label: str, hear: Hear, utterance: str | None, path: str | None) -> dict[str, Any]:
    """What plays one rendering; a note instead where there is none."""
    if utterance is None and path is None:
        return {"label": label, "audio": None, "picture": None, "note": "failed"}
    try:
        wave, sample_rate = hear(utterance, path)
    except AudioError as error:
        return {"label": label, "audio": None, "picture": None, "note": str(error)}
    picture = spectrogram(wave, sample_rate)
    return {"label": label, "audio": audio_url(wav_bytes(wave, sample_rate)), "picture": picture, "note": None}
