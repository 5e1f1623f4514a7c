"""The first seconds of a program: imports, TensorFlow's without its noise, and Ctrl-C in them."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


def program(verb: str | None = None) -> int:
    """Run the command line; returns its exit status. This module imports nothing that takes time.

    Args:
        verb: of train.py and the like; None: the first argument names it.
    """
    with quitting_at_once():
        from cbir_tf.commands.cli import main
    return main(verb=verb)


def script() -> None:
    """Entry point of the installed `cbir` program."""
    raise SystemExit(program())


@contextmanager
def quitting_at_once() -> Iterator[None]:
    """Let Ctrl-C end the process at once, with one word, while there is nothing to lose.

    For imports only: an exception in the midst of one comes out as whatever a C extension makes of
    it, with a traceback or worse. Does nothing outside the main thread, which gets the signals.
    """
    terminal = os.dup(2)  # import_tensorflow sends standard error elsewhere

    def quit_(number: int, frame: FrameType | None) -> None:
        os.write(terminal, b"\ninterrupted\n")
        os._exit(1)

    try:
        before = signal.signal(signal.SIGINT, quit_)
    except ValueError:  # not in the main thread
        before = None
    try:
        yield
    finally:
        if before is not None:
            signal.signal(signal.SIGINT, before)
        os.close(terminal)


def import_tensorflow() -> None:
    """Import TensorFlow; a verb does so once it has seen that its arguments are in order.

    Keeps TensorFlow's start-up lines, which look like errors, from what the user has to read:
    C++ writes them to the file descriptor, some of them whatever the log level.
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
