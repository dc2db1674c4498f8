"""Folders as prepare and fit_tokenizer leave them, with noise for audio, and encoders that go wrong."""

import ctypes
import os
import threading
import time
from pathlib import Path

import numpy as np

from data import storage
from data.audio import write_wav
from data.manifest import Utterance, write_manifest
from model.audio_tokenizers.base import fit_audio_tokenizer
from model.audio_tokenizers.kmeans_units import KMeansUnitTokenizer
from model.audio_tokenizers.residual_kmeans import ResidualKMeansTokenizer
from model.config import KMeansUnits, ResidualKMeans
from ray_jobs.recipe import Recipe, load_recipe
from ray_jobs.tokenize_shard import UtteranceEncoder

ROOT = Path(__file__).resolve().parents[2]
RATE = 16000


def make_corpus(folder: Path, utterances: int = 7) -> tuple[str, dict[str, str]]:
    """A manifest of noise, its fourth file corrupt and its last one music, and two tokenizers."""
    rng = np.random.default_rng(0)
    rows = []
    for i in range(utterances):
        wave = rng.normal(0, 0.1, 1600 * (i + 1)).astype(np.float32)
        write_wav(str(folder / f"audio/{i}.wav"), wave, RATE)
        kind = "music" if i == utterances - 1 else "speech"
        rows.append(Utterance(f"u{i}", f"audio/{i}.wav", 0.1 * (i + 1), text=f"word {i} ü", kind=kind))
    (folder / "audio/3.wav").write_bytes(b"not audio")
    manifest = str(folder / "manifest.jsonl")
    write_manifest(manifest, rows)
    units = KMeansUnits(kind="kmeans_units", codebook_size=4)
    music = ResidualKMeans(kind="residual_kmeans", codebook_size=4, num_codebooks=2)
    fit_audio_tokenizer(units, KMeansUnitTokenizer.features_of(units, wave), 1).save(str(folder / "unit"))
    fit_audio_tokenizer(music, ResidualKMeansTokenizer.features_of(music, wave), 1).save(str(folder / "music"))
    return manifest, {"unit": str(folder / "unit"), "music": str(folder / "music")}


def make_inputs(folder: Path, utterances: int = 12, bad: int = 1, seconds: float = 0.2) -> dict[str, str]:
    """Folders by job name; the first `bad` files are corrupt."""
    rng = np.random.default_rng(0)
    rows = []
    for i in range(utterances):
        write_wav(str(folder / f"prepare/audio/{i}.wav"), rng.normal(0, 0.1, int(RATE * seconds)), RATE)
        rows.append(Utterance(f"u{i}", f"audio/{i}.wav", seconds, text=f"word {i}"))
    for i in range(bad):
        (folder / f"prepare/audio/{i}.wav").write_bytes(b"not audio")
    write_manifest(str(folder / "prepare/manifest.jsonl"), rows)
    config = KMeansUnits(kind="kmeans_units", codebook_size=4)
    frames = KMeansUnitTokenizer.features_of(config, rng.normal(0, 0.1, RATE))
    fit_audio_tokenizer(config, frames, 1).save(str(folder / "fit/unit"))
    return {"prepare": str(folder / "prepare"), "fit_tokenizer": str(folder / "fit")}


def tokenize_recipe(**tokenize: float) -> Recipe:
    """configs/tiny.yaml with shards of 5 utterances and one worker."""
    settings = {"shard_utterances": 5, "num_workers": 1, **tokenize}
    return load_recipe(str(ROOT / "configs/tiny.yaml"), [f"tokenize.{key}={value}" for key, value in settings.items()])


def contents(folder: Path) -> dict[str, bytes]:
    """Every file below a folder but the metrics, which hold times."""
    names = [name for name in storage.list_files(folder) if not name.startswith("metrics")]
    return {name: (folder / name).read_bytes() for name in names}


class SegfaultingDecoder(UtteranceEncoder):
    """Its decoder dies of u5, as native code with a bug does."""

    def decode(self, utterance):
        if utterance.id == "u5":
            ctypes.string_at(0)
        return super().decode(utterance)


class DyingEncoder(UtteranceEncoder):
    """Its encoder dies of the samples of u1."""

    def encode(self, batch):
        if any(item.utterance.id == "u1" for item in batch):
            os._exit(1)
        return super().encode(batch)


class BlockingEncoder(UtteranceEncoder):
    """Never comes back from a batch with u5 in it."""

    def encode(self, batch):
        if any(item.utterance.id == "u5" for item in batch):
            threading.Event().wait()
        return super().encode(batch)


class BlockingOnceEncoder(UtteranceEncoder):
    """Blocks at u5 the first time that any process comes to it, and leaves a file `blocked` beside the manifest."""

    def encode(self, batch):
        marker = Path(self.manifest_path).with_name("blocked")
        if any(item.utterance.id == "u5" for item in batch) and not marker.exists():
            marker.touch()
            threading.Event().wait()
        return super().encode(batch)


class MeetingEncoder(UtteranceEncoder):
    """Begins when two of them are there."""

    def __init__(self, *arguments):
        super().__init__(*arguments)
        here = Path(self.manifest_path).parent / "here"
        storage.write_text(here / str(os.getpid()), "")
        deadline = time.monotonic() + 120
        while len(list(here.iterdir())) < 2:
            assert time.monotonic() < deadline, "nobody else came"
            time.sleep(0.05)


class BatchTellingEncoder(UtteranceEncoder):
    """Its codes tell who was in the batch: a test that sees equal bytes has seen equal batches."""

    def encode(self, batch):
        records = super().encode(batch)
        members = np.array([int(item.utterance.id[1:]) for item in batch], np.int16)
        for record in records:
            record.streams.update(dict.fromkeys(record.streams, members))
        return records
