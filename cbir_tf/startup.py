"""The first moments of a program: streams that take any text, TensorFlow without its noise.

This module imports nothing that takes time.
"""

from __future__ import annotations

import codecs
import importlib.abc
import importlib.machinery
import io
import os
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from types import ModuleType

from cbir_tf.interruption import quitting_at_once


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
