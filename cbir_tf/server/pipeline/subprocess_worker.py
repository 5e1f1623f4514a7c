"""A process of its own for work that needs TensorFlow or UMAP, which searches do not.

Their memory and their seconds of import stay out of the process that answers.
"""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from multiprocessing import get_context
from typing import TypeVar

Result = TypeVar("Result")


class SubprocessWorker:
    """One other process, started at the first call; any thread may call."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._pool: ProcessPoolExecutor | None = None

    def run(self, function: Callable[..., Result], *arguments: object) -> Result:
        """Call a function in the other process and wait for its result.

        Raises:
            BrokenProcessPool: the process was ended; the next call starts another.
        """
        with self._lock:
            if self._pool is None:
                spawn = get_context("spawn")
                self._pool = ProcessPoolExecutor(1, spawn, _end_with, (os.getpid(),))
            pool = self._pool
            with _without_interrupts():
                future = pool.submit(function, *arguments)
        try:
            return future.result()
        except BrokenProcessPool:
            with self._lock:
                if self._pool is pool:
                    self._pool = None
            raise

    def close(self) -> None:
        """End the process, also in the middle of a call."""
        with self._lock:
            if self._pool is not None:
                # Python 3.14 has kill_workers() for this.
                for process in (self._pool._processes or {}).values():
                    process.kill()
                self._pool.shutdown(wait=True, cancel_futures=True)
                self._pool = None


@contextmanager
def _without_interrupts() -> Iterator[None]:
    """A process that is started here inherits that Ctrl-C is not for it."""
    if not hasattr(signal, "pthread_sigmask"):  # Windows
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _end_with(parent: int) -> None:
    """In the other process: end when the parent has ended, for whatever reason."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(1)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
