"""Whether the audio of a corpus can be used: cheaply by its headers, or deeply by decoding all of it.

Both go through `check`; what decodes does so in processes of its own, so that a file that kills its decoder is one
more bad row.
"""

from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, replace
from multiprocessing import get_context
from typing import Any

from data import storage
from data.audio import AudioError, iter_blocks, longer_than_stated
from data.corpus.header import Header, read_header
from data.manifest import Utterance
from data.quarantine import quarantine_row
from data.timing import samples_to_seconds

SHORTER = "shorter_than_stated"
_TOLERANCE_S = 0.1  # by which a stated length may pass the audio's end
_CHUNK_UTTERANCES = 32
_ATTEMPTS = 2


@dataclass(frozen=True, slots=True)
class Problem:
    """Why the audio of an utterance cannot be used."""

    reason: str
    detail: str


@dataclass(frozen=True, slots=True)
class Facts:
    """What was found out; None: not looked at. `warning` is a problem that does not keep the utterance from use."""

    duration_s: float | None = None
    sample_rate: int | None = None
    channels: int | None = None
    warning: Problem | None = None


Finding = Facts | Problem


@dataclass(frozen=True)
class Checked:
    """Usable utterances with their facts, and quarantine rows for the rest."""

    utterances: list[Utterance]
    facts: list[Facts]
    quarantine: list[dict[str, Any]]

    def warnings(self) -> list[dict[str, Any]]:
        """Rows of the form of quarantine rows, for utterances that are kept all the same."""
        return [
            quarantine_row(utterance, fact.warning.reason, fact.warning.detail)
            for utterance, fact in zip(self.utterances, self.facts, strict=True)
            if fact.warning
        ]


def check(utterance: Utterance, root: str, deep: bool) -> Finding:
    """Facts or the problem of one utterance, its audio counted from `root`.

    Cheap: the header; nothing is known of what lies behind a URL. Deep: every sample is decoded.
    """
    path = storage.join(root, utterance.audio_filepath)
    if storage.is_url(path) and not deep:
        return Facts()
    try:
        header = read_header(path, to_the_end=utterance.duration is None)
        if deep:
            return _facts(utterance, header, _count_samples(path, header, utterance), 0.0)
    except AudioError as error:
        return Problem(error.reason, error.detail)
    return _facts(utterance, header, header.num_samples, utterance.offset)


def check_content(content: bytes, utterance: Utterance) -> Finding:
    """The cheap `check` of encoded audio in memory."""
    try:
        header = read_header(content, to_the_end=utterance.duration is None)
    except AudioError as error:
        return Problem(error.reason, error.detail)
    return _facts(utterance, header, header.num_samples, utterance.offset)


def _facts(utterance: Utterance, header: Header, num_samples: int | None, start_s: float) -> Finding:
    """What `num_samples`, the first `start_s` of which come before the utterance, say of it."""
    if num_samples is None:
        return Facts(utterance.duration, header.sample_rate, header.channels)
    there_s = samples_to_seconds(num_samples, header.sample_rate) - start_s
    if there_s <= 0:
        return Problem("empty", f"no samples at offset {utterance.offset} s")
    warning = None
    if utterance.duration is not None and utterance.duration > there_s + _TOLERANCE_S:
        warning = Problem(SHORTER, f"{utterance.duration} s stated, {there_s:.3f} s are there")
    elif utterance.is_whole_file and (
        longer := longer_than_stated(header.num_samples, utterance.duration, header.sample_rate)
    ):
        return Problem("longer_than_stated", longer)
    duration_s = there_s if utterance.duration is None else min(utterance.duration, there_s)
    return Facts(duration_s, header.sample_rate, header.channels, warning)


def check_all(
    utterances: Sequence[Utterance], root: str, deep: bool, num_workers: int, known: dict[str, Finding] | None = None
) -> Checked:
    """Check every utterance. `known` has findings by audio path that need no second look.

    A length that the corpus leaves open is filled in; one that it states stays.
    """
    known = known or {}
    asked = [utterance for utterance in utterances if utterance.audio_filepath not in known]
    found = _check_guarded(asked, root, num_workers) if deep else _check_headers(asked, root, num_workers)
    kept: list[Utterance] = []
    facts: list[Facts] = []
    quarantine: list[dict[str, Any]] = []
    for utterance in utterances:
        finding = known.get(utterance.audio_filepath) or next(found)
        if isinstance(finding, Problem):
            quarantine.append(quarantine_row(utterance, finding.reason, finding.detail))
            continue
        if utterance.duration is None and finding.duration_s is not None:
            utterance = replace(utterance, duration=round(finding.duration_s, 6))
        kept.append(utterance)
        facts.append(finding)
    return Checked(kept, facts, quarantine)


def _count_samples(path: str, header: Header, utterance: Utterance) -> int:
    """How many samples the utterance's span has, found by decoding them block by block. Raises AudioError."""
    blocks = iter_blocks(path, header.sample_rate, utterance.offset, utterance.duration)
    return sum(block.size for block in blocks)


def _check_headers(utterances: Sequence[Utterance], root: str, num_workers: int) -> Iterator[Finding]:
    with ThreadPoolExecutor(num_workers) as pool:
        yield from pool.map(lambda utterance: check(utterance, root, deep=False), utterances)


def _check_guarded(utterances: Sequence[Utterance], root: str, num_workers: int) -> Iterator[Finding]:
    """Deep findings in order; after a crash, the chunk it hit is gone through one by one."""
    chunks = [utterances[i : i + _CHUNK_UTTERANCES] for i in range(0, len(utterances), _CHUNK_UTTERANCES)]
    done = 0
    while done < len(chunks):
        with _pool(num_workers) as pool:
            for future in _submitted(pool, chunks[done:], root):
                findings = _unless_crashed(future)
                if findings is None:
                    break
                yield from findings
                done += 1
        if done < len(chunks):
            yield from _check_singly(chunks[done], root)
            done += 1


def _submitted(
    pool: ProcessPoolExecutor, chunks: Sequence[Sequence[Utterance]], root: str
) -> list[Future[list[Finding]]]:
    """All chunks, or those before the crash that broke the pool meanwhile."""
    futures: list[Future[list[Finding]]] = []
    for chunk in chunks:
        try:
            futures.append(pool.submit(_check_chunk, chunk, root))
        except BrokenProcessPool:
            break
    return futures


def _unless_crashed(future: Future[list[Finding]]) -> list[Finding] | None:
    try:
        return future.result()
    except BrokenProcessPool:
        return None


def _check_singly(chunk: Sequence[Utterance], root: str) -> Iterator[Finding]:
    """One after the other. A process that is found dead may have died of the file before: a second one is asked too."""
    pool = _pool(1)
    try:
        for utterance in chunk:
            finding: Finding = Problem("crash", "the process that decoded it died")
            for _ in range(_ATTEMPTS):
                try:
                    finding = pool.submit(check, utterance, root, True).result()
                    break
                except BrokenProcessPool:
                    pool.shutdown()
                    pool = _pool(1)
            yield finding
    finally:
        pool.shutdown()


def _check_chunk(chunk: Sequence[Utterance], root: str) -> list[Finding]:
    return [check(utterance, root, deep=True) for utterance in chunk]


def _pool(num_workers: int) -> ProcessPoolExecutor:
    return ProcessPoolExecutor(num_workers, get_context("spawn"))
