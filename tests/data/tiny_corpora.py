"""What the tests of corpus adapters share: tiny audio, and a corpus brought and looked at alike."""

import io
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
from pydantic import TypeAdapter

from data.audio import load_audio
from data.config import CorpusConfig
from data.corpus.brought import bring, look_at
from data.manifest import Utterance
from data.storage import join

RATE = 16000


def encoded(seconds: float = 0.5, kind: str = "WAV", hz: float = 200.0) -> bytes:
    buffer = io.BytesIO()
    wave = 0.1 * np.sin(2 * np.pi * hz * np.arange(int(seconds * RATE)) / RATE)
    soundfile.write(buffer, wave, RATE, format=kind)
    return buffer.getvalue()


def write(path: Path, content: bytes | str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content if isinstance(content, bytes) else content.encode())


def config(kind: str, path: Path, **options: Any) -> Any:
    return TypeAdapter(CorpusConfig).validate_python({"kind": kind, "path": str(path), **options})


def brought(kind: str, path: Path, **options: Any) -> tuple[dict[str, Utterance], dict[str, str], Path]:
    """Utterances by id, the reason of every id in quarantine, and the run folder."""
    run = path.parent / "run"
    result = bring(config(kind, path, **options), str(run))
    looked = look_at(config(kind, path, **options))
    assert [item.id for item in looked.utterances] == [item.id for item in result.utterances]
    assert looked.quarantine == result.quarantine
    return (
        {item.id: item for item in result.utterances},
        {row["id"]: row["reason"] for row in result.quarantine},
        run,
    )


def decoded(run: Path, utterance: Utterance) -> np.ndarray:
    path = join(run, utterance.audio_filepath)
    return load_audio(path, RATE, utterance.offset, utterance.duration)
