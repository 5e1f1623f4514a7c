"""Items that wait at the same time are worked on together."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from typing import Generic, TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")


class Batcher(Generic[Item, Result]):
    """Calls a function of several items as soon as it is free, with all items that wait.

    While a batch is worked on, the next one gathers. All methods belong to the event loop.

    Args:
        work: from the items of a batch to the result of each, in their order; an exception as a
            result is raised for that item only.
        executor: where it is called, one batch at a time.
        max_size: items of a batch.
    """

    def __init__(
        self,
        work: Callable[[list[Item]], Sequence[Result | Exception]],
        executor: Executor,
        max_size: int,
    ) -> None:
        self._work, self._executor, self._max_size = work, executor, max_size
        self._waiting: deque[tuple[Item, asyncio.Future[tuple[Result, float]]]] = deque()
        self._running: asyncio.Task[None] | None = None

    async def submit(self, item: Item) -> tuple[Result, float]:
        """The result of an item, and the seconds that its batch took.

        Raises:
            Exception: what the function raised, for this item or for its batch.
        """
        future = asyncio.get_running_loop().create_future()
        self._waiting.append((item, future))
        if self._running is None:
            self._running = asyncio.create_task(self._run())
        result: tuple[Result, float] = await future
        return result

    async def _run(self) -> None:
        try:
            while self._waiting:
                size = min(self._max_size, len(self._waiting))
                await self._run_batch([self._waiting.popleft() for _ in range(size)])
        finally:
            self._running = None

    async def _run_batch(
        self, batch: list[tuple[Item, asyncio.Future[tuple[Result, float]]]]
    ) -> None:
        items, futures = zip(*batch, strict=True)
        start = time.perf_counter()
        loop = asyncio.get_running_loop()
        results: Sequence[Result | Exception]
        try:
            results = await loop.run_in_executor(self._executor, self._work, list(items))
        except Exception as error:
            results = [error] * len(items)
        seconds = time.perf_counter() - start
        for future, result in zip(futures, results, strict=True):
            if future.done():  # its request was cancelled
                continue
            if isinstance(result, Exception):
                future.set_exception(result)
            else:
                future.set_result((result, seconds))
