"""What a vocoder is, and how one is found on disk. A new kind is one file and one line here.

Shapes: N = samples.
"""

from collections.abc import Iterable, Iterator, Mapping
from importlib import import_module
from typing import Any, Protocol

import numpy as np

from data import storage
from data.errors import InputError

CONFIG_NAME = "config.json"
WEIGHTS_NAME = "model.safetensors"
FORMAT_VERSION = 1
DURATIONS = "_durations"  # the key <stream>_durations may give frames per code, for deduplicated streams

# kind -> module:class; modules are imported when their kind is asked for
KINDS = {"unit_mel": "model.vocoders.unit_mel:UnitMelVocoder"}

Streams = Mapping[str, np.ndarray]


class Vocoder(Protocol):
    """Codes of some streams, and a voice, to sound."""

    kind: str

    @property
    def inputs(self) -> tuple[str, ...]:
        """The streams it needs."""
        ...

    @property
    def sample_rate(self) -> int:
        """Hz of what it makes."""
        ...

    @property
    def voices(self) -> tuple[str, ...]:
        """The voices it knows."""
        ...

    def synthesize(self, streams: Streams, voice: str | None = None) -> np.ndarray:
        """float32 samples (N,) in [-1, 1]; empty for no codes. Raises InputError for a voice it does not know."""
        ...

    def stream(self, chunks: Iterable[Streams], voice: str | None = None) -> Iterator[np.ndarray]:
        """Pieces of sound as chunks of codes come in; together as long as `synthesize` of them all."""
        ...

    def save(self, folder: str) -> None:
        """Write config.json and model.safetensors."""
        ...


def load_vocoder(folder: str) -> Any:
    """The vocoder saved in `folder`, by the `kind` of its config.json. Raises InputError where there is none."""
    path = storage.join(folder, CONFIG_NAME)
    if not storage.exists(path):
        raise InputError(f"{folder!r} holds no {CONFIG_NAME}: give the folder of a vocoder")
    config = storage.read_json(path)
    if config.get("kind") not in KINDS:
        raise InputError(f"{path!r} is of kind {config.get('kind')!r}, expected one of {', '.join(sorted(KINDS))}")
    module, _, name = KINDS[config["kind"]].partition(":")
    return getattr(import_module(module), name).load(folder)
