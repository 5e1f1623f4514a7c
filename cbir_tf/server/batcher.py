"""Items that come while work goes on are worked on together next."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from typing import Generic, TypeVar

Item = TypeVar("Item")

PATIENCE = 0.02  # seconds


class Batcher(Generic[Item]):
    """Collects items for a function that takes several of them in less time than one by one.

    The function is called as soon as it is free, with all that has come in the meantime, up to a
    number; first it waits for those that are announced, but not for long. Between two batches its
    thread does what else it has been asked.

    Args:
        work: of a batch.
        executor: where it is called, one call at a time.
        most: items in a batch.
        patience: seconds that what has come waits for what is announced.
    """

    def __init__(
        self,
        work: Callable[[list[Item]], None],
        executor: Executor,
        most: int,
        patience: float = PATIENCE,
    ) -> None:
        self._work, self._executor, self._most, self._patience = work, executor, most, patience
        self._waiting: deque[Item] = deque()
        self._changed = threading.Condition()
        self._called = self._more_to_come = False

    def put(self, items: Sequence[Item], more_to_come: bool = False) -> None:
        """Have items worked on; by any thread.

        Args:
            items: none or more.
            more_to_come: announce that there will be another call.
        """
        with self._changed:
            self._waiting.extend(items)
            self._more_to_come = more_to_come
            if self._is_ready():
                self._changed.notify()
            if self._called or not self._waiting:
                return
            self._called = True
        self._executor.submit(self._run)

    def _is_ready(self) -> bool:
        return not self._more_to_come or len(self._waiting) >= self._most

    def _run(self) -> None:
        with self._changed:
            self._changed.wait_for(self._is_ready, self._patience)
            batch = [self._waiting.popleft() for _ in range(min(self._most, len(self._waiting)))]
        try:
            self._work(batch)
        finally:
            with self._changed:
                self._called = again = bool(self._waiting)
            if again:
                self._executor.submit(self._run)
