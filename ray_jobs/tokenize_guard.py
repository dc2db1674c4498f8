"""The encoder in a process of its own, for a shard that has already seen its worker die. No Ray.

A file that kills its decoder, or whose samples kill the encoder, kills this process instead of the actor; when it has
killed two it becomes a quarantine row, and the rest of the shard comes out as from an undisturbed worker: the same
batches, the same bytes.
"""

import os
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from multiprocessing import get_context, parent_process
from typing import Any, TypeVar

from data.audio import AudioError
from data.manifest import Utterance
from data.quarantine import quarantine_row
from ray_jobs.tokenize_batches import batches, encoding_order
from ray_jobs.tokenize_encoder import Decoded, Outcome, UtteranceEncoder

Answer = TypeVar("Answer")
_ATTEMPTS = 2


@dataclass(frozen=True)
class Measured:
    """An utterance and the seconds that it decodes to."""

    utterance: Utterance
    seconds: float


def guarded_outcomes(encoder: UtteranceEncoder, utterances: Sequence[Utterance]) -> Iterator[list[Outcome]]:
    """What `encoder.outcomes` gives, by a copy of it in another process; the dead are quarantined as `crash`."""
    with _Guard(encoder) as guard:
        encoder.doing = "decoding in a guarded process"
        measured: list[Measured] = []
        bad: list[Outcome] = []
        for utterance in encoding_order(utterances):
            found = guard.ask(_measure, utterance)
            if isinstance(found, float):
                measured.append(Measured(utterance, found))
            else:
                bad.append(_crash(utterance) if found is None else found)
        yield bad
        for batch in batches(iter(measured), encoder.batch_seconds):
            members = [item.utterance for item in batch]
            encoder.doing = f"encoding {len(members)} utterances from {members[0].id!r} on in a guarded process"
            outcomes = guard.ask(_encode, members)
            yield [_alone(guard, member) for member in members] if outcomes is None else outcomes


def _alone(guard: "_Guard", utterance: Utterance) -> Outcome:
    outcomes = guard.ask(_encode, [utterance])
    return outcomes[0] if outcomes else _crash(utterance)


def _crash(utterance: Utterance) -> dict[str, Any]:
    return quarantine_row(utterance, "crash", "the process that read it died")


class _Guard:
    """A process that is started anew when it has died."""

    def __init__(self, encoder: UtteranceEncoder) -> None:
        self._start = (type(encoder), encoder.arguments)
        self._pool: ProcessPoolExecutor | None = None

    def ask(self, question: Callable[..., Answer], *arguments: Any) -> Answer | None:
        """The answer of the process, or None where two processes died of the question.

        Two, because the first may have died between the last question and this one, of what it had read before.
        Raises RuntimeError where none comes up: that is no file's fault, and must not quarantine any.
        """
        for _ in range(_ATTEMPTS):
            if self._pool is None:
                self._pool = self._started()
            try:
                return self._pool.submit(question, *arguments).result()
            except BrokenProcessPool:
                self._pool.shutdown()
                self._pool = None
        return None

    def _started(self) -> ProcessPoolExecutor:
        pool = ProcessPoolExecutor(1, get_context("spawn"), _start_guard, self._start)
        try:
            pool.submit(os.getpid).result()
        except BrokenProcessPool:
            pool.shutdown()
            raise RuntimeError(
                "the guarded process for a shard that was begun before died while it loaded the audio tokenizers: it "
                "needs the memory of a second copy of them beside the actor's, on a GPU too. Its own error is in the "
                "actor's log (ANTIPHON_WORKER_LOGS=1 shows it)"
            ) from None
        return pool

    def __enter__(self) -> "_Guard":
        return self

    def __exit__(self, *error: object) -> None:
        if self._pool:
            self._pool.shutdown()


_encoder: UtteranceEncoder | None = None


def _start_guard(kind: type[UtteranceEncoder], arguments: tuple[Any, ...]) -> None:
    import torch

    global _encoder
    threading.Thread(target=_end_with_parent, daemon=True).start()
    torch.set_num_threads(1)
    _encoder = kind(*arguments)


def _end_with_parent() -> None:
    """An actor that is killed cannot end its guard, which would wait for questions, and hold its memory, for ever."""
    parent = parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def _measure(utterance: Utterance) -> float | dict[str, Any]:
    assert _encoder is not None
    try:
        return _encoder.decode(utterance).seconds
    except AudioError as error:
        return quarantine_row(utterance, error.reason, error.detail)


def _encode(members: list[Utterance]) -> list[Outcome]:
    """Their records; quarantine rows for those that can no longer be read."""
    assert _encoder is not None
    decoded: list[Decoded] = []
    bad: list[Outcome] = []
    for utterance in members:
        try:
            decoded.append(_encoder.decode(utterance))
        except AudioError as error:
            bad.append(quarantine_row(utterance, error.reason, error.detail))
    return [*(_encoder.encode(decoded) if decoded else []), *bad]
