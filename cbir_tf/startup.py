"""The first seconds of a program: imports, TensorFlow's without its noise, and Ctrl-C in them.

This module imports nothing that takes time.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from types import FrameType

IN_PROGRAM: ContextVar[bool] = ContextVar("IN_PROGRAM", default=False)
"""Whether this process is the cbir program, which Ctrl-C may end, and not a user's own program or
notebook, which it may not."""


@contextmanager
def quitting_at_once() -> Iterator[None]:
    """In the cbir program, let Ctrl-C end the process at once, while there is nothing to lose.

    For imports only: an exception in the middle of one comes out as whatever a C extension makes
    of it, with a traceback or worse. Does nothing in a user's own program, nor outside the main
    thread, which gets the signals.
    """
    terminal = os.dup(2)  # import_tensorflow redirects standard error

    def quit_(number: int, frame: FrameType | None) -> None:
        os.write(terminal, b"\ninterrupted\n")
        os._exit(1)

    before = None
    try:
        if IN_PROGRAM.get():
            try:
                before = signal.signal(signal.SIGINT, quit_)
            except ValueError:  # not in the main thread
                before = None
        yield
    finally:
        if before is not None:
            signal.signal(signal.SIGINT, before)
        os.close(terminal)


def import_tensorflow() -> None:
    """Import TensorFlow without its start-up lines; call it once the user's input is checked.

    Those lines look like errors; C++ writes them to the file descriptor, some of them whatever the
    log level. If the import fails, they are shown.
    """
    import tempfile

    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    # Keeps memory between steps. malloc gives every large tensor back to the system and has it
    # zeroed page by page the next time, which is half the processor time of training.
    os.environ.setdefault("TF_CPU_ALLOCATOR_USE_BFC", "1")
    sys.stderr.flush()
    kept = os.dup(2)
    with quitting_at_once(), tempfile.TemporaryFile() as hidden:
        os.dup2(hidden.fileno(), 2)
        try:
            import tensorflow as tf

            tf.config.list_physical_devices()
        except BaseException:
            hidden.seek(0)
            os.write(kept, hidden.read())
            raise
        finally:
            os.dup2(kept, 2)
            os.close(kept)
