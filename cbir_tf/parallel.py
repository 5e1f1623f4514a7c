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


def blocks(rows: int, values_per_row: int, values_per_block: int) -> Iterator[slice]:
    """Slices of so many rows that each holds about so many values, and one row at least.

    Args:
        rows: in all.
        values_per_row: that are held at a time for each row.
        values_per_block: that may be held at a time.

    Example:
        >>> list(blocks(5, 10, 20))
        [slice(0, 2, None), slice(2, 4, None), slice(4, 5, None)]
    """
    at_once = max(1, values_per_block // max(1, values_per_row))
    return (slice(start, min(start + at_once, rows)) for start in range(0, rows, at_once))
