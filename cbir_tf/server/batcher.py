"""Items that come while work goes on are worked on together next."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from typing import Generic, TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")


class Batcher(Generic[Item, Result]):
    """Collects items for a function that takes several of them in less time than one by one.

    Nothing waits for a batch to fill: the function is called as soon as it is free, with all that
    has come in the meantime, up to a number.

    Args:
        work: of a batch; gives a result or an exception for each of its items. What it raises is
            raised for all of them.
        executor: where it is called, one call at a time.
        most: items in a batch.
    """

    def __init__(
        self,
        work: Callable[[Sequence[Item]], Sequence[Result | Exception]],
        executor: Executor,
        most: int,
    ) -> None:
        self._work, self._executor, self._most = work, executor, most
        self._waiting: deque[tuple[Item, asyncio.Future[Result]]] = deque()
        self._worker: asyncio.Task[None] | None = None

    async def __call__(self, item: Item) -> Result:
        """The result of one item.

        Raises:
            Exception: what the function has for it.
        """
        future: asyncio.Future[Result] = asyncio.get_running_loop().create_future()
        self._waiting.append((item, future))
        if self._worker is None:
            self._worker = asyncio.create_task(self._run())
        return await future

    async def _run(self) -> None:
        loop = asyncio.get_running_loop()
        while self._waiting:
            count = min(self._most, len(self._waiting))
            batch = [self._waiting.popleft() for _ in range(count)]
            batch = [each for each in batch if not each[1].cancelled()]
            items = [item for item, _ in batch]
            results: Sequence[Result | Exception]
            try:
                results = await loop.run_in_executor(self._executor, self._work, items)
            except Exception as error:
                results = [error] * len(batch)
            for (_, future), result in zip(batch, results, strict=True):
                if future.cancelled():
                    continue
                if isinstance(result, Exception):
                    future.set_exception(result)
                else:
                    future.set_result(result)
        self._worker = None
