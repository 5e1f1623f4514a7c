"""The process of a program: its streams, its signals, TensorFlow without its noise.

Ctrl-C and SIGTERM both raise KeyboardInterrupt in the main thread, so that what is half-written is
removed, and a program says in one line what is kept and how to go on. A user's own program or
notebook keeps its signals as they are. This module imports nothing that takes time.
"""

from __future__ import annotations

import codecs
import importlib.abc
import importlib.machinery
import io
import os
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from types import FrameType, ModuleType

STATUS = {signal.SIGINT: 130, signal.SIGTERM: 143}
"""Exit status of a program by the signal that ended it, as shells have it."""
PATIENCE = 1.0
"""Seconds after a signal in which a second one is that of a launcher that passes signals on; a
later one is a user who does not want to wait."""


class Terminated(KeyboardInterrupt):
    """SIGTERM, which ends a program as Ctrl-C does."""


class _Signals:
    """What `_interrupt` knows."""

    terminal: int | None = None
    """A copy of standard error, which `import_tensorflow` redirects."""
    at_once = 0
    """Number of blocks entered that end at once."""
    first: tuple[int, float] | None = None
    """The first signal and its time."""


_ADVICE: ContextVar[Callable[[], str]] = ContextVar("_ADVICE", default=lambda: "")


def handle_signals() -> None:
    """Let Ctrl-C and SIGTERM interrupt this process, the cbir program, in the same way.

    A signal that whoever started the program wants ignored, as nohup and background jobs do, stays
    ignored.
    """
    if _Signals.terminal is None:
        with suppress(OSError):  # there is no standard error
            _Signals.terminal = os.dup(2)
    for number in STATUS:
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, _interrupt)


def restore_signals() -> None:
    """Let a signal end the process silently: all is done but the end of the interpreter."""
    for number in STATUS:
        if signal.getsignal(number) is _interrupt:
            signal.signal(number, signal.SIG_DFL)


@contextmanager
def advising(advice: Callable[[], str]) -> Iterator[None]:
    """Let an interruption of the block say what is kept and how to go on.

    Args:
        advice: called when it is needed; one line. That of an inner block goes first.

    Example:
        >>> try:
        ...     with advising(lambda: "2 of 3 are kept; repeat the command"):
        ...         raise KeyboardInterrupt
        ... except KeyboardInterrupt as interruption:
        ...     print(interruption)
        2 of 3 are kept; repeat the command
    """
    token = _ADVICE.set(advice)
    try:
        yield
    except KeyboardInterrupt as interruption:
        if interruption.args:
            raise
        raise type(interruption)(advice()) from None
    except Exception:
        if _Signals.first is None:
            raise
        # Code in C has made another error of the interruption.
        raise KeyboardInterrupt(advice()) from None
    finally:
        _ADVICE.reset(token)


@contextmanager
def quitting_at_once() -> Iterator[None]:
    """In the cbir program, let a signal end the process at once, while there is nothing to lose.

    For imports only: an exception in the middle of one comes out as whatever a C extension makes
    of it, with a traceback or worse. Does nothing in a user's own program.
    """
    _Signals.at_once += 1
    try:
        yield
    finally:
        _Signals.at_once -= 1


def exit_status(interruption: KeyboardInterrupt) -> int:
    """The exit status of an interrupted program."""
    # Libraries such as watchfiles raise a KeyboardInterrupt of their own for any signal.
    number = _Signals.first[0] if _Signals.first else signal.SIGINT
    return STATUS[
        signal.SIGTERM if isinstance(interruption, Terminated) else signal.Signals(number)
    ]


def interruption_line(advice: str = "") -> str:
    """What an interrupted program says."""
    return f"interrupted; {advice}" if advice else "interrupted"


def _interrupt(number: int, frame: FrameType | None) -> None:
    now = time.monotonic()
    repeated = _Signals.first is not None
    if _Signals.first is None:
        _Signals.first = number, now
    if _Signals.at_once or now - _Signals.first[1] > PATIENCE:
        _quit(number)
    if not repeated:
        raise Terminated if number == signal.SIGTERM else KeyboardInterrupt


def _quit(number: int) -> None:
    advice = ""
    with suppress(Exception):
        advice = _ADVICE.get()()
    if _Signals.terminal is not None:
        line = f"\n{interruption_line(advice)}\n".encode(errors="backslashreplace")
        with suppress(OSError):
            os.write(_Signals.terminal, line)
    os._exit(STATUS[signal.Signals(number)])


def write_any_text() -> None:
    """Let standard output and error take every text, whatever their encoding.

    Characters that the encoding lacks, and the bytes of file names that are not UTF-8, are written
    as JSON escapes, so that a JSON document stays one: \\u00e9, \\udce9.
    """
    codecs.register_error("cbir_tf.escapes", _escaped)
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:  # as under pythonw, or closed by the caller
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: SIM115
        elif isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="cbir_tf.escapes")


def _escaped(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    units = error.object[error.start : error.end].encode("utf-16-be", "surrogatepass")
    escapes = (f"\\u{units[each : each + 2].hex()}" for each in range(0, len(units), 2))
    return "".join(escapes), error.end


def import_tensorflow() -> None:
    """Import TensorFlow without its start-up lines; call it once the user's input is checked.

    Those lines look like errors; C++ writes them to the file descriptor, some of them whatever the
    log level. If the import fails, they are shown.
    """
    if "tensorflow" in sys.modules:
        return
    quiet_tensorflow()
    with quitting_at_once():
        import tensorflow  # noqa: F401


def quiet_tensorflow() -> None:
    """Let the first import of TensorFlow in this process be a quiet one, whoever makes it."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    # Keeps memory between steps. malloc gives every large tensor back to the system and has it
    # zeroed page by page the next time, which is half the processor time of training.
    os.environ.setdefault("TF_CPU_ALLOCATOR_USE_BFC", "1")
    if not any(isinstance(each, _TensorFlowFinder) for each in sys.meta_path):
        sys.meta_path.insert(0, _TensorFlowFinder())


class _TensorFlowFinder(importlib.abc.MetaPathFinder):
    """Has TensorFlow, where it is found by the other finders, imported by a `_QuietLoader`."""

    def find_spec(
        self, name: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        if name != "tensorflow":
            return None
        spec = importlib.machinery.PathFinder.find_spec(name, path, target)
        if spec is not None and isinstance(spec.loader, importlib.machinery.SourceFileLoader):
            spec.loader = _QuietLoader(name, spec.loader.path)
        return spec


class _QuietLoader(importlib.machinery.SourceFileLoader):
    def exec_module(self, module: ModuleType) -> None:
        with _standard_error_hidden():
            super().exec_module(module)
            module.config.list_physical_devices()


@contextmanager
def _standard_error_hidden() -> Iterator[None]:
    """Keep what is written to standard error, in C++ too; show it if the block fails."""
    try:
        if sys.stderr is not None:
            sys.stderr.flush()
        kept = os.dup(2)
    except OSError:  # there is no standard error
        yield
        return
    with tempfile.TemporaryFile() as hidden:
        os.dup2(hidden.fileno(), 2)
        try:
            yield
        except BaseException:
            hidden.seek(0)
            os.write(kept, hidden.read())
            raise
        finally:
            with suppress(OSError, AttributeError):
                sys.stderr.flush()
            os.dup2(kept, 2)
            os.close(kept)
