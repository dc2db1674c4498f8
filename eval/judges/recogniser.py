"""The judge that listens to speech: pocketsphinx with its own English acoustic model and a small language model.

Only the language model and the list of words are fitted, both from training texts alone. Words that the wheel's
dictionary lacks are spelt sound by letter (`spelled_words` of config.json names them: treat scores on such words with
care); words without a single Latin letter cannot be heard at all (`unheard_words`).

Synthetic speech upsets the recogniser with its digital silence and varying level, so every wave is brought to one
peak, padded, and laid over faint white noise drawn from the utterance's id alone.
"""

import hashlib
from collections.abc import Iterable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from data import storage
from data.audio import resample
from data.errors import InputError
from data.timing import seconds_to_samples
from eval.judges.base import judge_id
from eval.judges.language_model import bigram_arpa
from eval.metrics.wer import NORMALIZATION, normalize

SAMPLE_RATE = 16000
PEAK, NOISE_SIGMA, PAD_S = 8000.0, 100.0, 0.2  # of 16-bit samples
LM_NAME, DICTIONARY_NAME, CONFIG_NAME = "lm.arpa", "words.dict", "config.json"
_LETTER_SOUNDS = {
    "a": "AE", "b": "B", "c": "K", "d": "D", "e": "EH", "f": "F", "g": "G", "h": "HH", "i": "IH",
    "j": "JH", "k": "K", "l": "L", "m": "M", "n": "N", "o": "AA", "p": "P", "q": "K", "r": "R",
    "s": "S", "t": "T", "u": "AH", "v": "V", "w": "W", "x": "K S", "y": "Y", "z": "Z",
}  # fmt: skip


class Recogniser:
    """Transcribes speech over the words of the training texts. Nothing is kept between utterances."""

    def __init__(self, folder: str | Path) -> None:
        """Load what `fit_recogniser` wrote. Raises InputError where it did not."""
        if not storage.exists(storage.join(folder, LM_NAME)):
            raise InputError(f"{str(folder)!r} holds no {LM_NAME}: give the recogniser/ folder that fit_judges writes")
        import pocketsphinx

        local = storage.local_folder(folder)
        acoustic = Path(pocketsphinx.get_model_path("en-us/en-us"))
        weights = [storage.read_bytes(local / name) for name in (LM_NAME, DICTIONARY_NAME, CONFIG_NAME)]
        self.id = judge_id("pocketsphinx", version("pocketsphinx"), *weights, storage.hash_folder(acoustic).encode())
        self._decoder = pocketsphinx.Decoder(
            hmm=str(acoustic),
            lm=str(local / LM_NAME),
            dict=str(local / DICTIONARY_NAME),
            cmn="batch",
            loglevel="FATAL",
        )

    def transcribe(self, wave: np.ndarray, sample_rate: int, utterance_id: str) -> str:
        """The words of a mono float wave (N,), '' when none are heard. The noise depends on `utterance_id` alone."""
        samples = level(resample(np.asarray(wave, np.float32), sample_rate, SAMPLE_RATE), utterance_id)
        # The running cepstral mean would otherwise carry over from the utterance before.
        self._decoder.reinit_feat()
        self._decoder.start_utt()
        self._decoder.process_raw(samples.tobytes(), no_search=False, full_utt=True)
        self._decoder.end_utt()
        heard = self._decoder.hyp()
        return "" if heard is None else " ".join(heard.hypstr.split())


def level(wave: np.ndarray, utterance_id: str) -> np.ndarray:
    """16-bit samples at one peak, padded, with faint noise that `utterance_id` alone decides."""
    digest = hashlib.sha256(utterance_id.encode()).digest()
    generator = np.random.default_rng(int.from_bytes(digest[:8], "little"))
    peak = float(np.abs(wave).max()) if wave.size else 0.0
    padded = np.pad(
        wave.astype(np.float64) * (PEAK / peak if peak > 0 else 0.0), seconds_to_samples(PAD_S, SAMPLE_RATE)
    )
    noisy = padded + generator.normal(0.0, NOISE_SIGMA, padded.size)
    return np.clip(np.round(noisy), -32768, 32767).astype(np.int16)


def fit_recogniser(folder: str, training_texts: Iterable[str]) -> dict[str, Any]:
    """Write lm.arpa, words.dict and config.json from training texts, normalised as scores are; the config.

    Raises InputError when no word of them can be heard.
    """
    texts = [normalize(text) for text in training_texts]
    vocabulary = sorted({word for text in texts for word in text.split()})
    known = _known_pronunciations(set(vocabulary))
    spelled = {word: sounds for word in vocabulary if word not in known and (sounds := spell(word))}
    unheard = {word for word in vocabulary if word not in known and word not in spelled}
    heard_texts = [" ".join(word for word in text.split() if word not in unheard) for text in texts]
    if not known and not spelled:
        raise InputError(
            f"the recogniser can hear none of the {len(vocabulary)} words of the training texts: it knows English "
            "in Latin letters; set judges.recogniser=false for other languages"
        )
    entries = {**known, **{word: [sounds] for word, sounds in spelled.items()}}
    config = {
        "kind": "pocketsphinx",
        "normalization": NORMALIZATION,
        "training_texts": len(texts),
        "vocabulary": len(vocabulary),
        "spelled_words": sorted(spelled),
        "unheard_words": sorted(unheard),
        "peak": PEAK,
        "noise_sigma": NOISE_SIGMA,
        "pad_s": PAD_S,
    }
    storage.write_text(storage.join(folder, LM_NAME), bigram_arpa(heard_texts))
    storage.write_text(storage.join(folder, DICTIONARY_NAME), _dictionary(entries))
    storage.write_json(storage.join(folder, CONFIG_NAME), config)
    return config


def spell(word: str) -> str:
    """Sounds of an unknown word, letter by letter: rough, but better than not being able to hear it at all."""
    return " ".join(_LETTER_SOUNDS[letter] for letter in word if letter in _LETTER_SOUNDS)


def _known_pronunciations(words: set[str]) -> dict[str, list[str]]:
    """word -> its pronunciations in the wheel's dictionary, where a second one is written `word(2)`."""
    import pocketsphinx

    found: dict[str, list[str]] = {}
    text = Path(pocketsphinx.get_model_path("en-us/cmudict-en-us.dict")).read_text(encoding="utf-8")
    for line in text.splitlines():
        entry, _, sounds = line.partition(" ")
        word = entry.partition("(")[0]
        if word in words:
            found.setdefault(word, []).append(sounds.strip())
    return found


def _dictionary(entries: dict[str, list[str]]) -> str:
    lines = []
    for word in sorted(entries):
        for index, sounds in enumerate(entries[word], start=1):
            lines.append(f"{word if index == 1 else f'{word}({index})'} {sounds}")
    return "\n".join(lines) + "\n"
