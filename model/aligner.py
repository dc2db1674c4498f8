"""Word times from a CTC model: its letters' probabilities, one best path through them, and words from letters.

Any `AutoModelForCTC` of transformers with a letter vocabulary (`vocab.json`): wav2vec 2.0, HuBERT, WavLM and others.
Shapes: N samples, T frames, V vocabulary, L tokens.
"""

import json
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from data import storage
from data.chunking import plan_chunks
from data.corpus.steps_config import CtcAlignment
from data.errors import InputError
from data.manifest import Word
from data.timing import frames_to_seconds, samples_to_seconds, seconds_to_frames, written_seconds
from model.audio_tokenizers.brought import pinned_revision
from model.ctc_alignment import AlignmentError, align_tokens

_DELIMITER = "|"


class WordAligner:
    """Aligns texts to recordings at `sample_rate`."""

    def __init__(self, model: Any, vocabulary: dict[str, int], settings: dict[str, Any], config: CtcAlignment) -> None:
        self.model = model
        self.vocabulary = vocabulary
        self.config = config
        self.sample_rate = int(settings.get("sampling_rate", 16000))
        self.normalizes = bool(settings.get("do_normalize", True))
        self.blank = int(model.config.pad_token_id or 0)
        self.stride = math.prod(model.config.conv_stride)
        self.frame_rate_hz = self.sample_rate / self.stride

    @classmethod
    def load(cls, config: CtcAlignment) -> "WordAligner":
        """The model at `config.path`, on a GPU where it is given one. Raises InputError where there is none."""
        from transformers import AutoModelForCTC
        from transformers.utils.hub import cached_file

        if storage.exists(config.path):
            path, revision = str(storage.local_folder(config.path)), "main"
        else:
            path, revision = config.path, pinned_revision(config.path, config.revision)
        try:
            model = AutoModelForCTC.from_pretrained(path, revision=revision, use_safetensors=True)
            found = {
                name: cached_file(path, name, revision=revision, _raise_exceptions_for_missing_entries=False)
                for name in ("vocab.json", "preprocessor_config.json")
            }
        except (OSError, ValueError) as error:
            raise InputError(
                f"corpus.alignment.path={config.path!r} is no CTC model with safetensors weights "
                f"({str(error).splitlines()[0]}): give a folder or hub id of e.g. a Wav2Vec2ForCTC"
            ) from None
        if found["vocab.json"] is None or not hasattr(model.config, "conv_stride"):
            raise InputError(
                f"corpus.alignment.path={config.path!r} lacks vocab.json or a convolutional front end: give a model "
                "whose vocabulary is letters, e.g. a Wav2Vec2ForCTC with its Wav2Vec2CTCTokenizer"
            )
        vocabulary = json.loads(storage.read_text(found["vocab.json"]))
        if not all(isinstance(index, int) for index in vocabulary.values()):
            raise InputError(
                f"corpus.alignment.path={config.path!r}: vocab.json holds {', '.join(list(vocabulary)[:5])} as "
                "vocabularies of their own: save the model with the vocabulary of one language"
            )
        settings = found["preprocessor_config.json"]
        device = "cuda" if config.num_gpus and torch.cuda.is_available() else "cpu"
        read = json.loads(storage.read_text(settings)) if settings else {}
        return cls(model.eval().requires_grad_(False).to(device), vocabulary, read, config)

    def align(self, wave_N: np.ndarray, text: str) -> tuple[Word, ...]:
        """(word, start_s, end_s) of every word of `text`, in order, over float32 samples at `sample_rate`.

        Characters that the vocabulary lacks in either case are left out. A word without a known one gets a share of
        the gap between its neighbours' times. Raises AlignmentError where no word has one, or the audio is too short.
        """
        words = text.split()
        tokens, owners = self.tokens(words)
        if not tokens:
            raise AlignmentError(f"no character of {text!r:.60} is in the model's vocabulary")
        spans_L2 = align_tokens(self.log_probs(wave_N), np.array(tokens), self.blank)
        times: list[tuple[float, float] | None] = [None] * len(words)
        for (start, end), owner in zip(spans_L2.tolist(), owners, strict=True):
            if owner is not None:
                start_s, end_s = (frames_to_seconds(frame, self.frame_rate_hz) for frame in (start, end))
                known = times[owner]
                times[owner] = (known[0] if known else start_s, end_s)
        duration_s = samples_to_seconds(len(wave_N), self.sample_rate)
        return tuple(
            (word, written_seconds(min(start_s, duration_s)), written_seconds(min(end_s, duration_s)))
            for word, (start_s, end_s) in zip(words, interpolate(times, duration_s), strict=True)
        )

    def tokens(self, words: Sequence[str]) -> tuple[list[int], list[int | None]]:
        """Ids of the words' characters, a delimiter between words where there is one, and whose word each id is."""
        tokens: list[int] = []
        owners: list[int | None] = []
        delimiter = self.vocabulary.get(_DELIMITER)
        for index, word in enumerate(words):
            ids = [found for char in word for found in self._ids(char)]
            if ids and tokens and delimiter is not None:
                tokens.append(delimiter)
                owners.append(None)
            tokens += ids
            owners += [index] * len(ids)
        return tokens, owners

    def _ids(self, char: str) -> list[int]:
        for form in (char, char.lower(), char.upper()):
            if form != _DELIMITER and all(part in self.vocabulary for part in form):
                return [self.vocabulary[part] for part in form]
        return []

    @torch.inference_mode()
    def log_probs(self, wave_N: np.ndarray) -> np.ndarray:
        """Log-probabilities (T, V), float32. Long audio goes through in overlapping chunks of whole frames."""
        if self.normalizes:
            wave_N = (wave_N - wave_N.mean()) / np.sqrt(wave_N.var() + 1e-7)
        receptive = 1
        for kernel, stride in zip(
            reversed(self.model.config.conv_kernel), reversed(self.model.config.conv_stride), strict=True
        ):
            receptive = (receptive - 1) * stride + kernel
        num_frames = 1 + (len(wave_N) - receptive) // self.stride if len(wave_N) >= receptive else 0
        chunk, overlap = (
            seconds_to_frames(s, self.frame_rate_hz) for s in (self.config.chunk_s, self.config.overlap_s)
        )
        found: list[np.ndarray] = []
        for part in plan_chunks(num_frames, chunk, overlap):
            end = (part.end - 1) * self.stride + receptive if part.end < num_frames else len(wave_N)
            span_N = wave_N[part.start * self.stride : end]
            samples_1N = torch.from_numpy(np.ascontiguousarray(span_N, dtype=np.float32))[None].to(self.model.device)
            log_probs_TV = self.model(samples_1N).logits[0].float().log_softmax(-1).cpu().numpy()
            found.append(log_probs_TV[part.keep_start - part.start : part.keep_end - part.start])
        if not found:
            raise AlignmentError(f"{len(wave_N)} samples are too short for one frame of {receptive}")
        return np.concatenate(found)


def interpolate(times: Sequence[tuple[float, float] | None], duration_s: float) -> list[tuple[float, float]]:
    """The times with the missing ones filled: each run of them shares the gap between its neighbours evenly."""
    filled: list[tuple[float, float]] = []
    for index, time in enumerate(times):
        if time is None:
            following = next((later for later in times[index:] if later is not None), None)
            left = next((count for count, later in enumerate(times[index:]) if later is not None), len(times) - index)
            start_s = filled[-1][1] if filled else 0.0
            end_s = following[0] if following else duration_s
            time = (start_s, start_s + max(0.0, end_s - start_s) / left)
        filled.append(time)
    return filled
