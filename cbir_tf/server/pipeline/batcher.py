"""Items that wait at the same time are worked on together, every client's in turn."""

from __future__ import annotations

import asyncio
import time
from collections import Counter, deque
from collections.abc import Callable, Hashable, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from typing import Generic, TypeVar

ALONE_AFTER = 10.0
"""Seconds without another client, after which one may fill whole batches."""

_NOBODY = object()

Item = TypeVar("Item")
Result = TypeVar("Result")


@dataclass(frozen=True, eq=False)
class _Waiting(Generic[Item, Result]):
    item: Item
    whose: Hashable
    most: int
    future: asyncio.Future[tuple[Result, float]]


class Batcher(Generic[Item, Result]):
    """Calls a function of several items as soon as it is free, with all items that wait.

    While a batch is worked on, the next one gathers. Clients take turns, so that one client's
    hundred items come behind another's first; and while there are several, a batch has one item of
    each, so that nobody waits for sixteen of another's. Items that nobody waits for any more are
    left out. All methods belong to the event loop.

    Args:
        work: from the items of a batch to the result of each, in their order; an exception as a
            result is raised for that item only.
        executor: where it is called.
        max_size: items of a batch.
        at_once: batches worked on at a time.
    """

    def __init__(
        self,
        work: Callable[[list[Item]], Sequence[Result | Exception]],
        executor: Executor,
        max_size: int,
        at_once: int = 1,
    ) -> None:
        self._work, self._executor = work, executor
        self._max_size, self._at_once = max_size, at_once
        self._waiting: dict[Hashable, deque[_Waiting[Item, Result]]] = {}  # in order of turn
        self._worked_on: Counter[Hashable] = Counter()
        self._running = 0
        self._last: Hashable = _NOBODY
        self._alone_from = 0.0
        self._tasks: set[asyncio.Task[None]] = set()  # the event loop itself does not keep them

    async def submit(
        self, item: Item, whose: Hashable = None, most: int | None = None
    ) -> tuple[Result, float]:
        """The result of an item, and the seconds that its batch took.

        Args:
            item: to work on.
            whose: the client that takes its turn with others.
            most: items of this client worked on at a time; None: no limit.

        Raises:
            Exception: what the function raised, for this item or for its batch.
        """
        future: asyncio.Future[tuple[Result, float]] = asyncio.get_running_loop().create_future()
        if whose != self._last:
            if self._last is not _NOBODY:
                self._alone_from = time.monotonic() + ALONE_AFTER
            self._last = whose
        limit = self._max_size * self._at_once if most is None else most
        self._waiting.setdefault(whose, deque()).append(_Waiting(item, whose, limit, future))
        if self._running < self._at_once:
            self._running += 1
            task = asyncio.create_task(self._run())
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        return await future

    async def _run(self) -> None:
        try:
            while batch := self._next_batch():
                await self._run_batch(batch)
                self._worked_on.subtract(each.whose for each in batch)
                self._worked_on += Counter()  # forget those at zero
        finally:
            self._running -= 1

    def _next_batch(self) -> list[_Waiting[Item, Result]]:
        """At most `max_size` items; one of each client where there are several."""
        batch: list[_Waiting[Item, Result]] = []
        is_alone = time.monotonic() >= self._alone_from
        taken: set[Hashable] = set()
        while len(batch) < self._max_size and (one := self._next(taken)) is not None:
            batch.append(one)
            if not is_alone:
                taken.add(one.whose)
        return batch

    def _next(self, passed_over: set[Hashable]) -> _Waiting[Item, Result] | None:
        for whose, items in list(self._waiting.items()):
            if whose in passed_over:
                continue
            while items and items[0].future.done():  # its request was cancelled
                items.popleft()
            if items and self._worked_on[whose] >= items[0].most:
                continue
            del self._waiting[whose]
            if items:
                one = items.popleft()
                if items:
                    self._waiting[whose] = items  # behind the others
                self._worked_on[whose] += 1
                return one
        return None

    async def _run_batch(self, batch: list[_Waiting[Item, Result]]) -> None:
        items = [each.item for each in batch]
        start = time.perf_counter()
        loop = asyncio.get_running_loop()
        results: Sequence[Result | Exception]
        try:
            results = await loop.run_in_executor(self._executor, self._work, items)
        except Exception as error:
            results = [error] * len(items)
        seconds = time.perf_counter() - start
        for each, result in zip(batch, results, strict=True):
            if each.future.done():  # its request was cancelled
                continue
            if isinstance(result, Exception):
                each.future.set_exception(result)
            else:
                each.future.set_result((result, seconds))
