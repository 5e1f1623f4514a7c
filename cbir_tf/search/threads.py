"""How many threads a search is worth."""

from __future__ import annotations

import sys
from contextlib import AbstractContextManager
from functools import cache

from threadpoolctl import ThreadpoolController

from cbir_tf.parallel import cores

LIBRARIES = ("faiss", "sklearn.neighbors")
"""Modules that bring an OpenMP library each."""
WORK_OF_A_THREAD = 2**25
"""Products of a query's and a vector's values: about ten milliseconds of one core. Threads of
OpenMP wait for one another at the end of every piece of work; where another program has one of the
cores, for as long as the system gives it, which is longer than all of a small search takes."""


def threads_for(values: int) -> int:
    """Threads of OpenMP for so many products of two values; at most as many as there are cores.

    Example:
        >>> threads_for(10_000 * 128)
        1
    """
    return max(1, min(cores(), values // WORK_OF_A_THREAD))


def limited_to(threads: int) -> AbstractContextManager[object]:
    """Let scikit-learn and FAISS use so many threads in the block, if the calling thread asks them.

    Other threads of the program keep their own number, as OpenMP counts for each.
    """
    limit: AbstractContextManager[object] = _controller(
        *(name in sys.modules for name in LIBRARIES)
    ).limit(limits=threads, user_api="openmp")
    return limit


@cache
def _controller(*_: bool) -> ThreadpoolController:
    """The libraries loaded; looked at again once one more of LIBRARIES is."""
    return ThreadpoolController()
