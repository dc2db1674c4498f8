"""Tokens per second of the stream, by grammar, and of the loop that people write: strings, tokenized and padded.

    python -m benchmarks.stream_speed < request.json

A process of its own, with one thread: {"folder": of a store, "seconds": of a leg, "rounds": of the comparison} in,
one line of JSON out. Useful tokens are those of documents; padding does not count.
"""

import json
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np

from data import storage
from data.config import GrammarConfig, PhaseMixture
from data.grammar.base import Grammar
from data.grammar.template import build_grammars
from data.lengths import Lengths
from data.sidecar import build_sidecar, open_sidecar, sidecar_fingerprint
from data.store import Record, StreamInfo, TokenStore
from data.stream import TokenStream
from data.text_tokenizer import build_byte_words_tokenizer
from data.vocabulary import build_vocabulary

SEQUENCE_LENGTH, ROWS, SEED = 2048, 8, 1
WARM_STEPS = 3
FORMATS = (
    *("unit_lm", "text_lm", "speechgpt_cross_modal", "speechgpt_chain_of_modality", "spiritlm_base", "spiritlm_pairs"),
    *("spiritlm_expressive", "slam_poisson", "anygpt", "anygpt_chat", "tts_icl", "chunked", "preference"),
)


def make_grammars(
    formats: tuple[str, ...], streams: dict[str, StreamInfo], words: list[str]
) -> tuple[dict[str, Grammar], Any]:
    """One task per format, named as it, and the text tokenizer."""
    tokenizer = build_byte_words_tokenizer(words)
    config = GrammarConfig(formats={name: {"kind": name} for name in formats}, groups={})  # type: ignore[misc]
    vocabulary = build_vocabulary(tokenizer, streams, config, [])
    return build_grammars(config, vocabulary, tokenizer, streams), tokenizer


def make_stream(store: TokenStore, grammars: dict[str, Grammar], task: str, lengths: Lengths) -> TokenStream:
    """Batches of one task."""
    phase = PhaseMixture(name=task, weights={task: 1.0})
    groups = {task: (task,)}
    return TokenStream(store.records, grammars, groups, phase, 1, SEQUENCE_LENGTH, ROWS, SEED, store.streams, lengths)


class StreamLeg:
    """Steps of one stream, from where the last call ended."""

    def __init__(self, stream: TokenStream) -> None:
        self._stream, self._step = stream, 0
        for _ in range(WARM_STEPS):
            self._batch()

    def rate(self, seconds: float) -> float:
        """Useful tokens per second over about so many seconds."""
        return rate_of(self._batch, seconds)

    def _batch(self) -> int:
        self._stream.rows(self._step)
        self._step += 1
        return sum(document.num_tokens for row in self._stream.plan(self._step - 1) for document in row)


class StringLeg:
    """A plain DataLoader: strings of units, tokenized by a fast tokenizer and padded to the longest of the batch."""

    def __init__(self, records: list[Record], tokenizer: Any) -> None:
        from torch.utils.data import DataLoader

        tokenizer.add_tokens([f"<Un{unit}>" for unit in range(500)] + ["<lm>"])
        tokenizer.add_special_tokens({"pad_token": "<pad>", "eos_token": "<eos>"})
        strings = ["<lm>" + "".join(f"<Un{c}>" for c in r.streams["unit"].tolist()) + "<eos>" for r in records]

        def collate(batch: list[str]) -> dict[str, Any]:
            found = tokenizer(batch, padding=True, return_tensors="pt")
            labels = found["input_ids"].masked_fill(found["attention_mask"] == 0, -100)
            return {**found, "labels": labels}

        self._loader: Any = DataLoader(strings, batch_size=ROWS, shuffle=True, collate_fn=collate)  # type: ignore[arg-type]
        self._batches = iter(self._loader)

    def rate(self, seconds: float) -> float:
        """Useful tokens per second over about so many seconds."""
        return rate_of(self._batch, seconds)

    def _batch(self) -> int:
        batch = next(self._batches, None)
        if batch is None:
            self._batches = iter(self._loader)
            batch = next(self._batches)
        return int(batch["attention_mask"].sum())


def rate_of(batch: Callable[[], int], seconds: float) -> float:
    """Tokens per second of calls that give their tokens."""
    tokens, started = 0, time.perf_counter()
    while (spent := time.perf_counter() - started) < seconds:
        tokens += batch()
    return tokens / spent


def padding_waste(stream: TokenStream, steps: int) -> float:
    """Share of a stream's first steps that is padding."""
    used = sum(document.num_tokens for step in range(steps) for row in stream.plan(step) for document in row)
    return 1 - used / (steps * ROWS * SEQUENCE_LENGTH)


def measure_speed(folder: str, seconds: float, rounds: int) -> dict[str, Any]:
    """Every number of the speed part, on the store in `folder`."""
    import torch

    torch.set_num_threads(1)
    words = storage.read_json(storage.join(folder, "words.json"))
    whole = TokenStore.open(folder)
    grammars, tokenizer = make_grammars(FORMATS, whole.streams, words)
    side = storage.join(folder, "sidecar")
    fingerprint = sidecar_fingerprint(folder, words)
    build_sidecar(folder, side, lambda _: (grammars, {}), fingerprint, "train")
    opened = open_sidecar(side, fingerprint)
    assert opened is not None
    store, lengths, _ = opened
    rates = {
        task: StreamLeg(make_stream(store, grammars, task, lengths)).rate(seconds)
        for task in FORMATS
        if task != "unit_lm"
    }
    ours = StreamLeg(make_stream(store, grammars, "unit_lm", lengths))
    strings = StringLeg([record for record in whole.records if "unit" in record.streams], tokenizer)
    strings.rate(seconds / 4)
    pairs = [(ours.rate(seconds), strings.rate(seconds)) for _ in range(rounds)]
    unit_lm = float(np.mean([mine for mine, _ in pairs]))
    return {
        "tokens_per_s_core": {"unit_lm": unit_lm, **rates},
        "tokens_per_s_string_pad": float(np.mean([theirs for _, theirs in pairs])),
        "speedup_vs_string_pad": float(np.mean([mine / theirs for mine, theirs in pairs])),
        "padding_waste": padding_waste(make_stream(store, grammars, "unit_lm", lengths), 200),
        "rounds": pairs,
    }


def main() -> int:
    """One measurement."""
    print(json.dumps(measure_speed(**json.loads(sys.stdin.readline()))), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
