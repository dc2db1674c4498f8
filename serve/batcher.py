"""Requests that wait together are answered together. Cancelled ones leave the queue; a failure stays its own."""

import asyncio
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Generic, TypeVar

Item = TypeVar("Item")
Answer = TypeVar("Answer")


class Batcher(Generic[Item, Answer]):
    """Collects what arrives while a batch is computed into the next batch. `run_batch` runs in `executor`."""

    def __init__(
        self, run_batch: Callable[[Sequence[Item]], list[Answer]], max_batch_size: int, executor: ThreadPoolExecutor
    ) -> None:
        self._run_batch, self._max_batch_size, self._executor = run_batch, max_batch_size, executor
        self._waiting: list[tuple[Item, asyncio.Future[Answer]]] = []
        self._task: asyncio.Task[None] | None = None

    async def submit(self, item: Item) -> Answer:
        """The answer to `item`. Raises what `run_batch` raises for it alone."""
        future: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        self._waiting.append((item, future))
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._drain())
        return await future

    async def _drain(self) -> None:
        while self._waiting:
            taken, self._waiting = self._waiting[: self._max_batch_size], self._waiting[self._max_batch_size :]
            await self._answer([(item, future) for item, future in taken if not future.cancelled()])

    async def _answer(self, batch: list[tuple[Item, asyncio.Future[Answer]]]) -> None:
        if not batch:
            return
        loop = asyncio.get_running_loop()
        try:
            answers = await loop.run_in_executor(self._executor, self._run_batch, [item for item, _ in batch])
        except Exception as error:
            if len(batch) > 1:  # one bad request must not fail its company
                for pair in batch:
                    await self._answer([pair])
            elif not batch[0][1].cancelled():
                batch[0][1].set_exception(error)
            return
        for (_, future), answer in zip(batch, answers, strict=True):
            if not future.cancelled():
                future.set_result(answer)
