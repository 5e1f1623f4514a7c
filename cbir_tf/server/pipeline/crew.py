"""Threads for what no one waits for."""

from __future__ import annotations

import threading
from collections.abc import Callable
from queue import SimpleQueue
from typing import Generic, TypeVar

Item = TypeVar("Item")


class Crew(Generic[Item]):
    """Threads of which whichever is free takes the next item.

    An executor makes a future of everything, which takes the thread that asks some 8 us.

    Args:
        work: of one item; it sees to its errors itself.
        threads: how many.
        name: of the threads.
    """

    def __init__(self, work: Callable[[Item], None], threads: int, name: str) -> None:
        self._work = work
        self._items: SimpleQueue[Item | None] = SimpleQueue()
        self._threads = [
            threading.Thread(target=self._run, name=f"{name}_{number}", daemon=True)
            for number in range(threads)
        ]
        for each in self._threads:
            each.start()

    def put(self, item: Item) -> None:
        """Have an item worked on; by any thread."""
        self._items.put(item)

    def close(self) -> None:
        """End the threads, once they have done what they were given."""
        for _ in self._threads:
            self._items.put(None)
        for each in self._threads:
            each.join()

    def _run(self) -> None:
        while (item := self._items.get()) is not None:
            self._work(item)
