"""Utterances of a shard in batches of similar length, decoded ahead of the encoder within a bound. No Ray.

Which utterances share a batch is a function of the shard alone: they are taken in `encoding_order`, and cut by the
lengths they decode to. Neither the number of threads nor who is faster changes it.
"""

from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import groupby
from typing import Any, Protocol, TypeVar

from data.audio import AudioError
from data.manifest import Utterance
from data.quarantine import quarantine_row

# An utterance whose length the manifest does not name counts as this much until it is decoded.
ASSUMED_S = 30.0
AHEAD_S_OF_THREAD = 2 * ASSUMED_S  # how far decoding runs ahead, so that no thread waits
# Such utterances come in the manifest's order: so many batches of them are looked at to find some of similar length.
WINDOW_BATCHES = 4


class Sized(Protocol):
    """A decoded utterance, or only its length."""

    @property
    def utterance(self) -> Utterance: ...
    @property
    def seconds(self) -> float: ...


Item = TypeVar("Item", bound=Sized)
Result = TypeVar("Result")


def encoding_order(utterances: Iterable[Utterance]) -> list[Utterance]:
    """By kind; within one the longest first and ties by id; then those whose length is not known, by id.

    The longest come first because the first batch then takes the most memory: what fits once fits to the end.
    """
    return sorted(utterances, key=lambda u: (u.kind, u.duration is None, -(u.duration or 0.0), u.id))


def batches(items: Iterable[Item], batch_seconds: float) -> Iterator[list[Item]]:
    """Cut items in `encoding_order` into batches of one kind, of at most `batch_seconds` of padded audio or one item.

    Padded: every item counts as long as the longest of its batch.
    """
    for (_, unknown), group in groupby(items, key=lambda item: (item.utterance.kind, item.utterance.duration is None)):
        yield from _cut(group, batch_seconds, batch_seconds * WINDOW_BATCHES if unknown else 0.0)


def _cut(items: Iterator[Item], batch_seconds: float, window_s: float) -> Iterator[list[Item]]:
    held: list[Item] = []
    while True:
        while (not _overflows(held, batch_seconds) or _padded_s(held) < window_s) and (item := next(items, None)):
            held.append(item)
        if not held:
            return
        held.sort(key=lambda item: (-item.seconds, item.utterance.id))
        size = max(1, int(batch_seconds / held[0].seconds)) if held[0].seconds else len(held)
        yield held[:size]
        held = held[size:]


def _padded_s(held: Sequence[Sized]) -> float:
    return len(held) * max((item.seconds for item in held), default=0.0)


def _overflows(held: Sequence[Sized], batch_seconds: float) -> bool:
    return len(held) > 1 and _padded_s(held) > batch_seconds


def decoded_ahead(
    utterances: Iterable[Utterance], decode: Callable[[Utterance], Result], threads: int, ahead_s: float
) -> Generator[Result | dict[str, Any], None, None]:
    """What `decode` makes of every utterance, or its quarantine row, in the order given.

    Decoding runs on `threads` threads, which hold and work on at most `ahead_s` of audio that has not been taken yet
    (or one utterance). Any error but AudioError is raised here.
    """
    ahead: deque[tuple[Utterance, Future[Result]]] = deque()
    waiting_s = 0.0
    rest = iter(utterances)
    with ThreadPoolExecutor(threads, thread_name_prefix="decode") as pool:
        try:
            while True:
                while (waiting_s < ahead_s or not ahead) and (utterance := next(rest, None)):
                    ahead.append((utterance, pool.submit(decode, utterance)))
                    waiting_s += _expected_s(utterance)
                if not ahead:
                    return
                utterance, future = ahead.popleft()
                try:
                    outcome: Result | dict[str, Any] = future.result()
                except AudioError as error:
                    outcome = quarantine_row(utterance, error.reason, error.detail)
                waiting_s -= _expected_s(utterance)
                yield outcome
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


def _expected_s(utterance: Utterance) -> float:
    return ASSUMED_S if utterance.duration is None else utterance.duration
