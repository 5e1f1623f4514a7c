"""A process of its own for work that must not hold up the process that answers.

That is decoding pictures from anyone, whose time and memory are the sender's choice, and what needs
TensorFlow or UMAP, whose memory and seconds of import stay out of the answering process. Such a
process can be ended in the middle of its work, which a thread cannot.
"""

from __future__ import annotations

import os
import pickle
import signal
import threading
from collections.abc import Callable, Iterator
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from multiprocessing import get_context, parent_process
from multiprocessing.connection import Connection
from multiprocessing.context import SpawnProcess
from typing import TypeVar

LESS_URGENT = 5
"""Steps by which the system puts such a process behind the one that answers."""

Result = TypeVar("Result")


class SubprocessWorker:
    """One other process, started at the first call; any thread may call, one call at a time.

    No pool of a library: that of concurrent.futures ends with any of its processes, and a call of
    pebble's, or of concurrent.futures', takes .9 ms where this one takes .5. Both need semaphores,
    which AWS Lambda does not have.

    Args:
        prepare: called in the process when it has started, at the top of a module; its time, and
            that of importing what it needs, does not count as that of a call.
    """

    def __init__(self, prepare: Callable[[], object] | None = None) -> None:
        self._prepare = prepare
        self._calling, self._changing = threading.Lock(), threading.Lock()
        self._started: tuple[SpawnProcess, Connection] | None = None

    def run(
        self, function: Callable[..., Result], *arguments: object, seconds: float | None = None
    ) -> Result:
        """Call a function in the other process and wait for its result.

        Args:
            function: at the top of a module.
            arguments: its arguments.
            seconds: most that the call may take, once the process has started; None: no limit.

        Raises:
            TimeoutError: it took longer, and the process was ended.
            BrokenProcessPool: the process has ended; the next call starts another.
            Exception: what the function raised.
        """
        with self._calling:
            process, connection = self._process()
            try:
                connection.send((function, arguments))
                if not connection.poll(seconds):
                    raise TimeoutError(f"more than {seconds:g} s")
                is_result, result = connection.recv()
            except BaseException as error:
                self._end(process)
                if isinstance(error, (EOFError, ConnectionError)):
                    raise BrokenProcessPool("the process has ended") from None
                raise
        if is_result:
            value: Result = result
            return value
        raise result

    def close(self) -> None:
        """End the process, also in the middle of a call."""
        with self._changing:
            started = self._started
        if started is not None:
            self._end(started[0])

    def _process(self) -> tuple[SpawnProcess, Connection]:
        with self._changing:
            if self._started is None:
                spawn = get_context("spawn")
                ours, theirs = spawn.Pipe()
                process = spawn.Process(target=_answer, args=(theirs, self._prepare), daemon=True)
                with _without_interrupts():
                    process.start()
                theirs.close()
                try:
                    ours.recv()  # that it has started, which takes part of a second
                except EOFError:
                    process.join()
                    raise BrokenProcessPool("the process has ended") from None
                self._started = process, ours
            return self._started

    def _end(self, process: SpawnProcess) -> None:
        with self._changing:
            process.kill()
            process.join()
            if self._started is not None and self._started[0] is process:
                self._started = None


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


def _answer(connection: Connection, prepare: Callable[[], object] | None) -> None:
    """In the other process: call what is sent, until the parent has ended, for whatever reason."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if hasattr(os, "nice"):  # not on Windows
        os.nice(LESS_URGENT)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    if prepare is not None:
        prepare()
    connection.send(None)
    while True:
        try:
            function, arguments = connection.recv()
        except EOFError:
            return
        try:
            answer = True, function(*arguments)
        except Exception as error:
            answer = False, _that_travels(error)
        connection.send(answer)


def _end_with_parent() -> None:
    parent = parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def _that_travels(error: Exception) -> Exception:
    """The error, or its text where another process could not make it from what it is sent."""
    try:
        pickle.loads(pickle.dumps(error))
    except Exception:
        return RuntimeError(f"{type(error).__name__}: {error}")
    return error
