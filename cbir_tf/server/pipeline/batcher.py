"""Items that come while work goes on are worked on together next."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor
from contextlib import suppress
from typing import Generic, TypeVar

Item = TypeVar("Item")

PATIENCE = 0.02  # seconds


class Batch(Generic[Item]):
    """Items that are worked on together; any number of threads may share them out by iterating.

    Args:
        size: how many there will be, of which some may still be on their way.
        take: gives the next, when it has come; None: it does not come.

    Attributes:
        taken: those that a thread has got.
    """

    def __init__(self, size: int, take: Callable[[], Item | None]) -> None:
        self.size, self.taken = size, list[Item]()
        self._take, self._places = take, iter(range(size))

    def __iter__(self) -> Iterator[Item]:
        return self

    def __next__(self) -> Item:
        next(self._places)  # as all here one step for Python, so that it needs no lock
        item = self._take()
        if item is None:
            raise StopIteration
        self.taken.append(item)
        return item


class Batcher(Generic[Item]):
    """Collects items for a function that takes several of them in less time than one by one.

    The function is called as soon as it is free, with all that has come in the meantime, up to a
    number; first it waits for those that are announced, but not for long. Between two batches its
    thread does what else it has been asked.

    Args:
        work: of a batch, over which it has to iterate.
        executor: where it is called, one call at a time.
        most: items in a batch.
        threads: among which `work` shares a batch out. It is called as soon as fewer items are
            announced than there are threads: those begin who would have nothing else to do.
        patience: seconds that what has come waits for what is announced.
    """

    def __init__(
        self,
        work: Callable[[Batch[Item]], None],
        executor: Executor,
        most: int,
        threads: int = 1,
        patience: float = PATIENCE,
    ) -> None:
        self._work, self._executor, self._threads = work, executor, threads
        self._most, self._patience = most, patience
        self._waiting: deque[Item] = deque()
        self._changed = threading.Condition()
        self._announced = 0
        self._called = self._working = False

    def put(self, items: Sequence[Item], announced: int = 0) -> None:
        """Have items worked on; by any thread.

        Args:
            items: none or more.
            announced: how many are on their way; as many calls will follow.
        """
        with self._changed:
            self._waiting.extend(items)
            self._announced = announced
            if self._working or self._is_ready():
                self._changed.notify_all()
            if self._called or not self._waiting:
                return
            self._called = True
        self._executor.submit(self._run)

    def _is_ready(self) -> bool:
        return self._announced < self._threads or len(self._waiting) >= self._most

    def _run(self) -> None:
        with self._changed:
            is_ready = self._changed.wait_for(self._is_ready, self._patience)
            coming = self._announced if is_ready else 0
            size = min(self._most, len(self._waiting) + coming)
            self._working = True
        try:
            self._work(Batch(size, self._take))
        finally:
            with self._changed:
                self._working = False
                self._called = again = bool(self._waiting)
            if again:
                self._executor.submit(self._run)

    def _take(self) -> Item | None:
        with suppress(IndexError):
            return self._waiting.popleft()
        with self._changed:
            self._changed.wait_for(lambda: self._waiting or not self._announced, self._patience)
            return self._waiting.popleft() if self._waiting else None
