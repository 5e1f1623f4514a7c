"""One function over many items, in threads."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")

_BLOCK = 4096


def in_parallel(
    function: Callable[[Item], Result], items: Sequence[Item], threads: int | None = None
) -> Iterator[Result]:
    """The function of every item, in their order, by as many threads as there are cores.

    Worth it where the function waits for files, or for C code that lets other threads run.

    Args:
        function: of one item.
        items: what it is called with.
        threads: another number, for what waits for a network; None: as many as there are cores.
    """
    with ThreadPoolExecutor(threads or os.cpu_count()) as pool:
        # By blocks, so that a million items do not wait in the queue as a million futures.
        for start in range(0, len(items), _BLOCK):
            yield from pool.map(function, items[start : start + _BLOCK])
