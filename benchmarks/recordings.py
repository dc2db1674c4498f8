"""Real recordings for tests and benchmarks: where they lie, and workloads of a wanted length made of them."""

import os
from collections.abc import Iterator
from dataclasses import replace
from itertools import cycle
from pathlib import Path

from data import storage
from data.manifest import Utterance, read_manifest, resolve_audio, write_manifest

ROOT = Path(__file__).resolve().parent.parent
# The one place that says where real recordings lie: beside the checkout.
REAL_AUDIO = ROOT.parent / "shared" / "audio"
READ_SPEECH = REAL_AUDIO / "read" / "manifest.jsonl"


def speech_recordings(runs_dir: str) -> tuple[list[Utterance], str]:
    """Utterances with absolute paths, each once, and the name of the corpus.

    Real ones where they are there, else those of the built-in corpus, which is made in `runs_dir`.
    """
    if READ_SPEECH.exists():
        return _each_once(_utterances(str(READ_SPEECH))), "real recordings: read speech"
    from ray_jobs import prepare
    from ray_jobs.job import ensure
    from ray_jobs.recipe import load_recipe

    folder = ensure(prepare.JOB, load_recipe("configs/tiny.yaml", [f"runs_dir={runs_dir}"]))
    made = [utterance for utterance in _utterances(folder.file("manifest.jsonl")) if utterance.kind == "speech"]
    return made, "built-in corpus: the real recordings are absent"


def workload(recordings: list[Utterance], seconds: float) -> list[Utterance]:
    """Recordings in their order, repeated under new ids, until they last `seconds`; at least one."""
    chosen: list[Utterance] = []
    total_s = 0.0
    for index, utterance in enumerate(cycle(recordings)):
        if chosen and total_s >= seconds:
            break
        chosen.append(replace(utterance, id=f"{index:06d}-{utterance.id}", split="train"))
        total_s += utterance.duration or 0.0
    return chosen


def seconds_of(utterances: list[Utterance]) -> float:
    """Seconds of audio by the manifest."""
    return sum(utterance.duration or 0.0 for utterance in utterances)


def padding_ceiling(utterances: list[Utterance], batch_size: int) -> float:
    """Padded over real seconds of batches in the order given: what padding alone can cost."""
    lengths = [utterance.duration or 0.0 for utterance in utterances]
    parts = [lengths[i : i + batch_size] for i in range(0, len(lengths), batch_size)]
    return sum(len(part) * max(part) for part in parts) / sum(lengths)


def write_workload(path: str, utterances: list[Utterance]) -> str:
    """A manifest of a workload; returns its path."""
    write_manifest(path, utterances)
    return storage.absolute(path)


def _utterances(manifest: str) -> Iterator[Utterance]:
    for utterance in read_manifest(manifest):
        yield replace(utterance, audio_filepath=os.path.abspath(resolve_audio(manifest, utterance)))


def _each_once(utterances: Iterator[Utterance]) -> list[Utterance]:
    """One file of every utterance; where it comes in several encodings, these take turns."""
    encodings: dict[str, list[Utterance]] = {}
    for utterance in utterances:
        encodings.setdefault(str(utterance.extra.get("utterance", utterance.id)), []).append(utterance)
    return [files[index % len(files)] for index, files in enumerate(encodings.values())]
