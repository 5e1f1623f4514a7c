"""Digests of files that are kept by size and modification time, so that few are read again."""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path

from cbir_tf.storage.addresses import address_of
from cbir_tf.storage.files import sha256

State = tuple[int, int, str]
"""Size in bytes, modification time in ns, SHA-256."""

SETTLED = 2_000_000_000
"""Nanoseconds after which a file's time is trusted: one written twice within a tick of the clock
would otherwise keep the digest of its first content."""


class FileStates:
    """The digests of files, from memory where size and modification time are those of before.

    Args:
        known: states by path.

    Attributes:
        fresh: states that are not among the known, by path.
    """

    def __init__(self, known: Mapping[str, State] | None = None) -> None:
        self._known = known or {}
        self.fresh: dict[str, State] = {}

    def digest(self, path: Path) -> str:
        """SHA-256 of a file's content; safe to call from several threads.

        Raises:
            OSError: the file cannot be read.
        """
        now = path.stat()
        state, name = (now.st_size, now.st_mtime_ns), address_of(path)
        size, changed, digest = self._known.get(name, (-1, -1, ""))
        if (size, changed) == state:
            return digest
        digest = sha256(path)
        if time.time_ns() - now.st_mtime_ns > SETTLED:
            self.fresh[name] = (*state, digest)
        return digest
