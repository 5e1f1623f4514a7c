"""TensorFlow's start, without its noise."""

from __future__ import annotations

import os
import sys
import tempfile


def import_tensorflow() -> None:
    """Import TensorFlow; a verb does so once it has seen that its arguments are in order.

    Keeps TensorFlow's start-up lines, which look like errors, from what the user has to read:
    C++ writes them to the file descriptor, some of them whatever the log level.
    """
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    # Keeps memory between steps. malloc gives every large tensor back to the system and has it
    # zeroed page by page the next time, which is half the processor time of training.
    os.environ.setdefault("TF_CPU_ALLOCATOR_USE_BFC", "1")
    sys.stderr.flush()
    kept = os.dup(2)
    with tempfile.TemporaryFile() as hidden:
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
