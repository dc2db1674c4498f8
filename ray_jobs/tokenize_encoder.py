"""Utterances to records of the token store: decode, resample and encode inside one process. No Ray.

Shapes: N = samples, T = frames, K = codebooks, L = codes after compression.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import Any

import numpy as np

from data.manifest import Utterance
from data.store import Record
from data.timing import samples_to_seconds
from model.audio_tokenizers.base import load_audio_tokenizer, stream_info, tokenizer_id
from ray_jobs.tokenize_batches import AHEAD_S_OF_THREAD, batches, decoded_ahead, encoding_order
from ray_jobs.tokenize_plan import kind_of_stream, load_wave

# Decoding may run ahead of the encoder by some batches, and by enough to keep every thread at work.
AHEAD_BATCHES = 3
RATE_WITHOUT_STREAM_HZ = 16000
BATCH_SECONDS = 60.0

Outcome = Record | dict[str, Any]


@dataclass(frozen=True)
class Decoded:
    """An utterance with its samples (N,) by sample rate."""

    utterance: Utterance
    waves: dict[int, np.ndarray]

    @property
    def seconds(self) -> float:
        """Seconds of audio, counted at the lowest rate."""
        rate = min(self.waves)
        return samples_to_seconds(self.waves[rate].size, rate)


class UtteranceEncoder:
    """Encodes with the audio tokenizers of `folders` (stream -> folder); a test's faulty encoder is a subclass.

    A batch holds `batch_seconds` of padded audio, and `threads` decode while it is encoded. `doing` says in words
    what is being done, for whoever watches from another thread.
    """

    def __init__(
        self,
        manifest_path: str,
        folders: Mapping[str, str],
        max_duration_s: float,
        batch_seconds: float = BATCH_SECONDS,
        threads: int = 1,
    ) -> None:
        self.arguments = (manifest_path, dict(folders), max_duration_s, batch_seconds, threads)
        self.manifest_path = manifest_path
        self.max_duration_s = max_duration_s
        self.batch_seconds = batch_seconds
        self.threads = threads
        self.doing = "loading"
        self.tokenizers = {name: load_audio_tokenizer(folder) for name, folder in folders.items()}
        self.streams = {
            name: stream_info(tokenizer, tokenizer_id(folders[name])) for name, tokenizer in self.tokenizers.items()
        }

    def decode(self, utterance: Utterance) -> Decoded:
        """The samples of an utterance, once for every rate that its streams need. Raises AudioError."""
        rates = {t.sample_rate for t in self._tokenizers_of(utterance).values()} or {RATE_WITHOUT_STREAM_HZ}
        waves = {rate: load_wave(self.manifest_path, utterance, rate, self.max_duration_s) for rate in sorted(rates)}
        return Decoded(utterance, waves)

    def encode(self, batch: Sequence[Decoded]) -> list[Record]:
        """The records of decoded utterances of one kind, in one call of each audio tokenizer."""
        speakers = [item.utterance.speaker for item in batch]
        streams: list[dict[str, np.ndarray]] = [{} for _ in batch]
        durations: list[dict[str, np.ndarray]] = [{} for _ in batch]
        for name, tokenizer in self._tokenizers_of(batch[0].utterance).items():
            encoded = tokenizer.encode([item.waves[tokenizer.sample_rate] for item in batch], speakers=speakers)
            compression = getattr(tokenizer, "compression", None)
            for i, codes_TK in enumerate(encoded):
                if compression is None:
                    streams[i][name] = codes_TK.reshape(-1)
                else:
                    streams[i][name], durations[i][name] = compression.compress(codes_TK.reshape(-1))
        return [_record(item, streams[i], durations[i]) for i, item in enumerate(batch)]

    def outcomes(self, utterances: Sequence[Utterance]) -> Iterator[list[Outcome]]:
        """Batch after batch, the record or quarantine row of every utterance; their order is the encoder's own."""
        bad: list[Outcome] = []

        def good() -> Iterator[Decoded]:
            for result in decoded:
                if isinstance(result, Decoded):
                    yield result
                else:
                    bad.append(result)

        order = encoding_order(utterances)
        ahead_s = max(self.batch_seconds * AHEAD_BATCHES, self.threads * AHEAD_S_OF_THREAD)
        with closing(decoded_ahead(order, self.decode, self.threads, ahead_s)) as decoded:
            self.doing = "decoding"
            for batch in batches(good(), self.batch_seconds):
                self.doing = f"encoding {len(batch)} utterances from {batch[0].utterance.id!r} on"
                yield list(self.encode(batch))
                self.doing = "decoding"
        yield bad

    def _tokenizers_of(self, utterance: Utterance) -> dict[str, Any]:
        return {name: t for name, t in self.tokenizers.items() if kind_of_stream(name) == utterance.kind}


def _record(item: Decoded, streams: dict[str, np.ndarray], durations: dict[str, np.ndarray]) -> Record:
    utterance = item.utterance
    return Record(
        id=utterance.id,
        text=utterance.text,
        speaker=utterance.speaker,
        lang=utterance.lang,
        duration_s=item.seconds,
        caption=utterance.caption,
        kind=utterance.kind,
        split=utterance.split,
        words=utterance.words,
        extra=utterance.extra,
        streams=streams,
        durations=durations,
    )
