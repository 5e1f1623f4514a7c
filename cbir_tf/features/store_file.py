"""The SQLite file of a feature store: schema, migrations, connections and errors."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from cbir_tf.errors import UserError

SCHEMA_VERSION = 2

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
    # Only `close` uses one from another thread than its own.
    connection = sqlite3.connect(path, timeout=30, factory=Connection, check_same_thread=False)
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA synchronous = FULL")
    return connection


@contextmanager
def reporting(path: Path) -> Iterator[None]:
    """Turn SQLite's errors into a UserError that names the file."""
    try:
        yield
    except sqlite3.DatabaseError as error:
        name = getattr(error, "sqlite_errorname", "")
        if name.startswith(("SQLITE_FULL", "SQLITE_IOERR", "SQLITE_CANTOPEN", "SQLITE_READONLY")):
            raise UserError(
                f"{path}: cannot be written ({error}); free some disk space or choose another place"
            ) from error
        raise UserError(
            f"{path}: no usable feature store ({error}); delete it and run cbir extract"
        ) from error
