"""What is known of the files of the mirror: the object each was last the same as."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

from cbir_tf.errors import UserError
from cbir_tf.storage.addresses import cache_folder

_SCHEMA = """
CREATE TABLE IF NOT EXISTS objects (
    path TEXT PRIMARY KEY, -- below the mirror
    etag TEXT NOT NULL,
    size INTEGER NOT NULL,
    mtime_ns INTEGER NOT NULL -- of the file
) WITHOUT ROWID
"""


@dataclass(frozen=True)
class Object:
    """An object as S3 lists it: its ETag changes with its content."""

    etag: str
    size: int


@dataclass(frozen=True)
class Stat:
    """A file as it was last seen: size in bytes, time of change in nanoseconds."""

    size: int
    mtime_ns: int

    @classmethod
    def of(cls, path: Path) -> Stat | None:
        """None where there is no file."""
        try:
            found = path.stat()
        except (FileNotFoundError, NotADirectoryError):
            return None
        return cls(found.st_size, found.st_mtime_ns) if path.is_file() else None


class MirrorIndex:
    """For each file of the mirror, the object and the state of the file when they were the same.

    Every change is kept at once, so that a kill loses nothing. Threads may share it.
    """

    def __init__(self, connection: sqlite3.Connection, root: Path) -> None:
        self._connection, self._root = connection, root
        self._lock = threading.Lock()

    @classmethod
    @contextmanager
    def open(cls) -> Iterator[MirrorIndex]:
        """The index of this machine's mirror, made where it is missing.

        Raises:
            UserError: it cannot be read or written.
        """
        file = cache_folder() / "s3.db"
        try:
            file.parent.mkdir(parents=True, exist_ok=True)
            connection = sqlite3.connect(
                file, timeout=30, check_same_thread=False, isolation_level=None
            )
            with closing(connection):
                connection.execute("PRAGMA journal_mode = WAL")
                connection.execute("PRAGMA synchronous = NORMAL")
                connection.execute(_SCHEMA)
                yield cls(connection, cache_folder() / "s3")
        except sqlite3.DatabaseError as error:
            raise UserError(
                f"{file}: cannot be used ({error}); free some room, or delete it"
            ) from error

    def below(self, path: Path) -> dict[Path, tuple[Object, Stat]]:
        """What is known of a file, and of those below it if it is a folder."""
        name = self._name(path)
        rows = self._connection.execute(
            "SELECT * FROM objects WHERE path = ?1 OR path > ?1 || '/' AND path < ?1 || '0'",
            (name,),  # 0 comes after /
        )
        return {
            self._root / name: (Object(etag, size), Stat(size, mtime_ns))
            for name, etag, size, mtime_ns in rows.fetchall()
        }

    def set(self, path: Path, same: Object, stat: Stat) -> None:
        """Note that a file is now the same as an object."""
        row = (self._name(path), same.etag, stat.size, stat.mtime_ns)
        with self._lock:
            self._connection.execute("INSERT OR REPLACE INTO objects VALUES (?, ?, ?, ?)", row)

    def remove(self, path: Path) -> None:
        """Forget a file."""
        with self._lock:
            self._connection.execute("DELETE FROM objects WHERE path = ?", (self._name(path),))

    def _name(self, path: Path) -> str:
        return path.relative_to(self._root).as_posix()
