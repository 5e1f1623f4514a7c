"""Many items at once: a function over them in threads, and rows in blocks that fit in memory."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")

_QUEUED = 4096


def cores() -> int:
    """Processor cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):  # not on macOS and Windows
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def blocks(rows: int, values_per_row: int, values_per_block: int) -> Iterator[slice]:
    """Slices over all rows, in order, so that one block stays within a number of values.

    Args:
        rows: number of rows to go through.
        values_per_row: values that a row needs in memory, as the columns of a distance matrix.
        values_per_block: most values of a block; a block has at least one row even so.

    Yields:
        Consecutive slices of all but the last the same length; none where there are no rows.

    Example:
        >>> list(blocks(5, values_per_row=100, values_per_block=250))
        [slice(0, 2, None), slice(2, 4, None), slice(4, 5, None)]
    """
    size = max(1, values_per_block // max(1, values_per_row))
    for start in range(0, rows, size):
        yield slice(start, min(start + size, rows))


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
        for some in blocks(len(items), 1, _QUEUED):
            yield from pool.map(function, items[some])
