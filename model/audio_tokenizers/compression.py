"""Shorter unit sequences: deduplication, and merges (BPE, unigram) over units, all of which can be undone.

A piece is a run of units that got a code of its own. The codes 0 to base size - 1 are always the single units
themselves, under their own numbers, so that every unit sequence can be compressed, one with unseen units too.
Merges over units of speech: Ren et al. 2022, Chang et al. 2023; unigram with 5000 pieces over HuBERT units is the case
of Cuervo and Marxer 2024 (arXiv 2404.00685). Unigram itself: Kudo 2018; BPE: Sennrich et al. 2016.

Shapes: T = frames, U = units (frames, or runs of equal frames when deduplicated first), L = codes.
"""

import json
from collections.abc import Iterable, Iterator
from typing import Any, Protocol

import numpy as np

from data import storage
from data.durations import deduplicate, expand
from data.errors import InputError
from model.config import BpeCompression, CompressionConfig, DedupCompression, UnigramCompression

FOLDER = "compression"
FORMAT_VERSION = 1
_CONFIG_NAME, _MODEL_NAME = "config.json", "tokenizer.json"
_FIRST_CHARACTER = 0xF0000  # units as characters of a private use plane, which no text rule touches
_TRAINING_UNITS = 1000  # a longer sequence is cut for the fit, which bounds its memory
_SCORE_DIGITS = 6  # of a log probability: above the noise of the sums, which no two fits order alike
_FILLER_STEP = 1e-4  # by which the library sets apart the scores of units that its pruning had thrown out


class Compression(Protocol):
    """Codes of one codebook to fewer codes, and back."""

    kind: str

    @property
    def base_size(self) -> int:
        """How many codes the tokenizer itself has."""
        ...

    @property
    def needs_durations(self) -> bool:
        """Whether the codes alone do not say how long each unit lasts."""
        ...

    @property
    def codebook_size(self) -> int:
        """How many codes `compress` can give."""
        ...

    def compress(self, codes_T: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """int16 codes (L,) and int16 durations in frames.

        One duration per code, unless codes of several units were deduplicated first: then one per unit, and every
        unit of a code but its first is counted negative, so that the boundaries can be seen without the pieces.
        """
        ...

    def expand(self, codes_L: np.ndarray, durations: np.ndarray | None = None) -> np.ndarray:
        """int16 codes (T,) again. Without durations, what was deduplicated comes back as one frame per run."""
        ...

    def save(self, folder: str) -> None:
        """Write the folder that `load_compression` reads."""
        ...


class Deduplication:
    """Runs of equal codes become one code."""

    kind = "dedup"
    needs_durations = True

    def __init__(self, base_size: int) -> None:
        self.base_size = self.codebook_size = base_size

    def compress(self, codes_T: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """One code per run and its frames."""
        return deduplicate(codes_T)

    def expand(self, codes_L: np.ndarray, durations: np.ndarray | None = None) -> np.ndarray:
        """The frames; one per code where durations are not known."""
        codes_L = np.asarray(codes_L, dtype=np.int16).reshape(-1)
        return codes_L if durations is None else expand(codes_L, durations)

    def save(self, folder: str) -> None:
        """Write config.json."""
        _save_config(folder, self.kind, self.codebook_size)


class Merges:
    """Pieces of units as codes, by BPE or a unigram model of the `tokenizers` library.

    Without `dedup` the codes alone give the frames back. With it, they need the durations.
    """

    def __init__(self, kind: str, model: Any, base_size: int, dedup: bool) -> None:
        self.kind = kind
        self.base_size = base_size
        self.needs_durations = dedup
        self._model = model
        spelled = [model.id_to_token(code) for code in range(model.get_vocab_size())]
        self._pieces = [_units_of(text) for text in spelled]
        self._lengths = np.array([len(piece) for piece in self._pieces])
        if [piece.tolist() for piece in self._pieces[:base_size]] != [[unit] for unit in range(base_size)]:
            raise InputError(f"the vocabulary does not begin with the {base_size} single units: fit it anew")

    @property
    def codebook_size(self) -> int:
        """Units and merged pieces."""
        return len(self._pieces)

    def compress(self, codes_T: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Codes of pieces. Raises InputError for a unit outside the base codebook."""
        units_U, frames_U = deduplicate(codes_T) if self.needs_durations else (np.asarray(codes_T).reshape(-1), None)
        if units_U.size and not 0 <= units_U.min() <= units_U.max() < self.base_size:
            raise InputError(
                f"units run from {units_U.min()} to {units_U.max()}, expected 0 to {self.base_size - 1}: "
                "they come from another tokenizer than this compression"
            )
        codes_L = np.array(self._model.encode(_text_of(units_U)).ids, dtype=np.int16)
        lengths_L = self._lengths[codes_L]
        if frames_U is None:
            return codes_L, lengths_L.astype(np.int16)
        signs_U = np.full(len(units_U), -1, dtype=np.int16)
        signs_U[np.cumsum(lengths_L) - lengths_L] = 1
        return codes_L, frames_U * signs_U

    def expand(self, codes_L: np.ndarray, durations: np.ndarray | None = None) -> np.ndarray:
        """The frames, by the pieces; durations are used only where units were deduplicated."""
        codes_L = np.asarray(codes_L).reshape(-1)
        units_U = np.concatenate([np.zeros(0, np.int16), *(self._pieces[code] for code in codes_L)])
        if not self.needs_durations or durations is None:
            return units_U
        return expand(units_U, np.abs(np.asarray(durations, dtype=np.int64)))

    def save(self, folder: str) -> None:
        """Write config.json and tokenizer.json."""
        _save_config(folder, self.kind, self.base_size, dedup=self.needs_durations)
        storage.write_bytes(storage.join(folder, _MODEL_NAME), self._model.to_str().encode())


def fit_compression(config: CompressionConfig, code_sequences: Iterable[np.ndarray], base_size: int) -> Compression:
    """A compression of codes below `base_size`, fitted on sequences (T,), of which at most config.max_codes count.

    The same sequences give the same compression, in whatever order they come. Raises InputError where there are none
    for a kind that needs them, or where the pieces asked for are not more than the units.
    """
    if isinstance(config, DedupCompression):
        return Deduplication(base_size)
    if config.vocabulary_size <= base_size:
        raise InputError(
            f"compression.vocabulary_size is {config.vocabulary_size}, but the codebook alone has {base_size} codes: "
            "give more, e.g. 10 times as many"
        )
    texts = sorted(_training_texts(config, code_sequences))
    if not texts:
        raise InputError(f"compression {config.kind}: no units to fit it on; see the quarantine of prepare")
    fit = _fit_bpe if isinstance(config, BpeCompression) else _fit_unigram
    return Merges(config.kind, fit(config, texts, base_size), base_size, config.dedup)  # type: ignore[arg-type]


def load_compression(folder: str) -> Compression | None:
    """The compression saved in `folder`; None where there is none."""
    path = storage.join(folder, _CONFIG_NAME)
    if not storage.exists(path):
        return None
    config = storage.read_json(path)
    if config["kind"] == Deduplication.kind:
        return Deduplication(config["base_codebook_size"])
    from tokenizers import Tokenizer

    model = Tokenizer.from_str(storage.read_bytes(storage.join(folder, _MODEL_NAME)).decode())
    return Merges(config["kind"], model, config["base_codebook_size"], config["dedup"])


def _fit_bpe(config: BpeCompression, texts: list[str], base_size: int) -> Any:
    from tokenizers import Tokenizer, models, trainers

    model = Tokenizer(models.BPE())
    trainer = trainers.BpeTrainer(
        vocab_size=config.vocabulary_size,
        initial_alphabet=_alphabet(base_size),
        max_token_length=config.max_piece_units,
        show_progress=False,
    )
    model.train_from_iterator(texts, trainer)
    return model


def _fit_unigram(config: UnigramCompression, texts: list[str], base_size: int) -> Any:
    """The library's pieces under codes and scores that no random order of its hash tables has a part in."""
    from tokenizers import Tokenizer, models, trainers

    fitted = Tokenizer(models.Unigram())
    trainer = trainers.UnigramTrainer(
        vocab_size=config.vocabulary_size,
        initial_alphabet=_alphabet(base_size),
        max_piece_length=config.max_piece_units,
        show_progress=False,
    )
    fitted.train_from_iterator(texts, trainer)
    scored = dict(json.loads(fitted.to_str())["model"]["vocab"])
    lowest = min(scored.values())
    exact = {text: round(_settled(text, score, lowest), _SCORE_DIGITS) for text, score in scored.items()}
    singles = _alphabet(base_size)
    merged = sorted((text for text in exact if len(text) > 1), key=lambda text: (-exact[text], text))
    return Tokenizer(models.Unigram([(text, exact[text]) for text in (*singles, *merged)]))


def _settled(text: str, score: float, lowest: float) -> float:
    """Units that training never saw or threw out are put back in random order, a step apart: all get the lowest."""
    steps = (score - lowest) / _FILLER_STEP
    return lowest if len(text) == 1 and abs(steps - round(steps)) < 1e-6 else score


def _training_texts(config: BpeCompression | UnigramCompression, code_sequences: Iterable[np.ndarray]) -> Iterator[str]:
    left = config.max_codes
    for codes_T in code_sequences:
        units_U = deduplicate(codes_T)[0] if config.dedup else np.asarray(codes_T).reshape(-1)
        units_U = units_U[:left]
        left -= len(units_U)
        for start in range(0, len(units_U), _TRAINING_UNITS):
            yield _text_of(units_U[start : start + _TRAINING_UNITS])


def _alphabet(base_size: int) -> list[str]:
    return [chr(_FIRST_CHARACTER + unit) for unit in range(base_size)]


def _text_of(units_U: np.ndarray) -> str:
    return (units_U.astype("<u4") + _FIRST_CHARACTER).tobytes().decode("utf-32-le")


def _units_of(text: str) -> np.ndarray:
    return (np.frombuffer(text.encode("utf-32-le"), dtype="<u4") - _FIRST_CHARACTER).astype(np.int16)


def _save_config(folder: str, kind: str, base_size: int, **fields: Any) -> None:
    fields = {"kind": kind, "format_version": FORMAT_VERSION, "base_codebook_size": base_size, **fields}
    storage.write_json(storage.join(folder, _CONFIG_NAME), fields)
