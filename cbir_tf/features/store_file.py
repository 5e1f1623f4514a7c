"""The SQLite file of a feature store: schema, migrations, connections and errors."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from cbir_tf.errors import UserError

SCHEMA_VERSION = 2
WAIT = 10.0
"""Seconds to wait for another process that writes."""

SCHEMA = """
CREATE TABLE about (key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE features (
    id TEXT PRIMARY KEY,
    path TEXT,              -- or address; null for images that are not files
    label INTEGER NOT NULL, -- counts into about.class_names; -1 for unlabelled
    split TEXT NOT NULL,
    digest TEXT NOT NULL,   -- SHA-256 of the encoded image
    metadata TEXT NOT NULL DEFAULT '{}', -- JSON object of text and numbers
    vector BLOB NOT NULL    -- little-endian, of about.dtype
) WITHOUT ROWID;
CREATE INDEX described ON features (path, label, split, metadata); -- filters need not read vectors
"""

# SQL that migrates a store to the next version, by its version.
MIGRATIONS = {
    1: """
    ALTER TABLE features ADD COLUMN metadata TEXT NOT NULL DEFAULT '{}';
    CREATE INDEX described ON features (path, label, split, metadata);
    INSERT INTO about VALUES ('dtype', 'float32'), ('version', '');
    """
}


class Connection(sqlite3.Connection):
    """A connection with weak references, so that it is closed when its thread ends."""


def connect(path: Path) -> Connection:
    """A connection to the file; for reading alone where the file or its folder is read-only."""
    if _is_writable(path):
        target = path.absolute().as_uri()
    else:
        # SQLite would put files beside it, of which one with changes has to be there already.
        has_changes = _size(path.with_name(f"{path.name}-wal")) > 0
        target = f"{path.absolute().as_uri()}?{'mode=ro' if has_changes else 'immutable=1'}"
    # Only `close` uses one from another thread than its own.
    connection = sqlite3.connect(
        target, timeout=WAIT, factory=Connection, check_same_thread=False, uri=True
    )
    if _is_writable(path):
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = FULL")
    return connection


@contextmanager
def reporting(path: Path) -> Iterator[None]:
    """Turn SQLite's errors into a UserError that names the file.

    Only a damaged file is to be deleted: a lock, a full disk or a missing permission passes.
    """
    try:
        yield
    except sqlite3.DatabaseError as error:
        name = getattr(error, "sqlite_errorname", "")
        if name.startswith(("SQLITE_BUSY", "SQLITE_LOCKED")):
            reason = "in use by another process; repeat the command when that has finished"
        elif name.startswith(("SQLITE_READONLY", "SQLITE_PERM", "SQLITE_AUTH", "SQLITE_CANTOPEN")):
            reason = f"cannot be opened or written ({error}); check the permissions of its folder"
        elif name.startswith(("SQLITE_FULL", "SQLITE_IOERR", "SQLITE_NOMEM")):
            reason = f"cannot be written ({error}); free some disk space or choose another place"
        elif name.startswith(("SQLITE_CORRUPT", "SQLITE_NOTADB")):
            reason = f"no usable feature store ({error}); delete it and run cbir extract"
        elif name.startswith("SQLITE_ERROR"):  # a sound database with other tables
            reason = f"a database, but no feature store ({error}); choose another run folder"
        else:
            raise
        raise UserError(f"{path}: {reason}") from error


def _is_writable(path: Path) -> bool:
    existing = path if path.exists() else path.parent
    return os.access(existing, os.W_OK) and os.access(path.parent, os.W_OK)


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0
