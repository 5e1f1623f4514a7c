"""Work for a process of its own: what needs TensorFlow or UMAP, of which searches have no use.

Their memory and their seconds of import stay out of the process that answers.
"""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import get_context
from typing import TypeVar

Result = TypeVar("Result")


class Aside:
    """One other process, started when it is first needed; for any number of threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._pool: ProcessPoolExecutor | None = None

    def run(self, function: Callable[..., Result], *arguments: object) -> Result:
        """Call a function there and wait for what it gives.

        Raises:
            BrokenProcessPool: the process was ended; the next call starts another.
        """
        with self._lock:
            if self._pool is None:
                self._pool = ProcessPoolExecutor(1, get_context("spawn"), _alone, (os.getpid(),))
            pool = self._pool
            # Inherited: Ctrl-C is for the process that answers.
            before = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])
            try:
                future = pool.submit(function, *arguments)
            finally:
                signal.pthread_sigmask(signal.SIG_SETMASK, before)
        try:
            return future.result()
        except BrokenProcessPool:
            with self._lock:
                if self._pool is pool:
                    self._pool = None
            raise

    def close(self) -> None:
        """End the process, whatever it does."""
        with self._lock:
            if self._pool is not None:
                for process in (self._pool._processes or {}).values():
                    process.kill()
                self._pool.shutdown(wait=True, cancel_futures=True)
                self._pool = None


def _alone(parent: int) -> None:
    """End with the parent, however that ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(1)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
