"""Batches form while the one before is computed; failures and cancellations stay with their request."""

import asyncio
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import pytest

from serve.batcher import Batcher


class Doubler:
    """Doubles numbers, remembers its batches, and waits until it is let go."""

    def __init__(self) -> None:
        self.batches: list[list[int]] = []
        self.started, self.go = threading.Event(), threading.Event()

    def __call__(self, items: Sequence[int]) -> list[int]:
        self.batches.append(list(items))
        self.started.set()
        assert self.go.wait(10)
        if 13 in items:
            raise ValueError("13 is refused")
        return [2 * item for item in items]


async def start(batcher: Batcher[int, int], items: Sequence[int]) -> list[asyncio.Task[int]]:
    tasks = [asyncio.create_task(batcher.submit(item)) for item in items]
    await asyncio.sleep(0)
    return tasks


def test_what_waits_together_is_computed_together() -> None:
    async def run() -> list[int]:
        first = await start(batcher, [1])
        await asyncio.to_thread(double.started.wait, 10)
        rest = await start(batcher, [2, 3, 4, 5])
        double.go.set()
        return await asyncio.gather(*first, *rest)

    double = Doubler()
    with ThreadPoolExecutor(1) as executor:
        batcher = Batcher(double, 3, executor)
        assert asyncio.run(run()) == [2, 4, 6, 8, 10]
    assert double.batches == [[1], [2, 3, 4], [5]]


def test_one_failure_does_not_fail_its_company() -> None:
    async def run() -> list[int | BaseException]:
        tasks = await start(batcher, [1, 13, 2])
        return await asyncio.gather(*tasks, return_exceptions=True)

    double = Doubler()
    double.go.set()
    with ThreadPoolExecutor(1) as executor:
        batcher = Batcher(double, 3, executor)
        one, bad, two = asyncio.run(run())
    assert (one, two) == (2, 4)
    with pytest.raises(ValueError, match="13"):
        raise bad  # type: ignore[misc]


def test_a_cancelled_request_leaves_the_queue() -> None:
    async def run() -> list[int]:
        first = await start(batcher, [1])
        await asyncio.to_thread(double.started.wait, 10)
        gone, kept = await start(batcher, [2, 3])
        gone.cancel()
        double.go.set()
        return await asyncio.gather(*first, kept)

    double = Doubler()
    with ThreadPoolExecutor(1) as executor:
        batcher = Batcher(double, 4, executor)
        assert asyncio.run(run()) == [2, 6]
    assert double.batches == [[1], [3]]
