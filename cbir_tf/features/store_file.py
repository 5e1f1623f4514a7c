"""The SQLite file of a feature store: schema, migrations, connections and errors."""

from __future__ import annotations

import os
import re
import sqlite3
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from cbir_tf.errors import UserError
from cbir_tf.features.record import EARLIER, OWN
from cbir_tf.storage.files import replacing

SCHEMA_VERSION = 3
WAIT = 10.0
"""Seconds to wait for another process that writes."""

# Filters and digests need not read vectors. A gallery without a folder is complete. Vectors of
# removed images are spare: a file of the same content may return.
_GALLERIES = """
CREATE INDEX described ON features (path, label, split, metadata, gallery);
CREATE INDEX digests ON features (digest);
CREATE TABLE galleries (folder TEXT PRIMARY KEY, name TEXT NOT NULL, complete INTEGER NOT NULL)
    WITHOUT ROWID;
CREATE TABLE spare (digest TEXT PRIMARY KEY, vector BLOB NOT NULL) WITHOUT ROWID;
CREATE TABLE files (path TEXT PRIMARY KEY, size INTEGER NOT NULL, mtime_ns INTEGER NOT NULL,
    digest TEXT NOT NULL) WITHOUT ROWID;
"""
SCHEMA = f"""
CREATE TABLE about (key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE features (
    id TEXT PRIMARY KEY,
    path TEXT,              -- or address; null for images that are not files
    label INTEGER NOT NULL, -- counts into about.class_names; -1 for unlabelled
    split TEXT NOT NULL,
    digest TEXT NOT NULL,   -- SHA-256 of the encoded image
    metadata TEXT NOT NULL DEFAULT '{{}}', -- JSON object of text and numbers
    vector BLOB NOT NULL,   -- little-endian, of about.dtype
    gallery TEXT NOT NULL DEFAULT '{OWN}'
) WITHOUT ROWID;
{_GALLERIES}"""
# Images of any folder went by their whole path.
_GALLERY_BEFORE = f"""CASE WHEN id LIKE '/%' OR id LIKE 's3://%' OR id GLOB '[A-Za-z]:[/\\]*'
    THEN '{EARLIER}' ELSE '{OWN}' END"""

# SQL that migrates a store to the next version, by its version.
MIGRATIONS = {
    1: """
    ALTER TABLE features ADD COLUMN metadata TEXT NOT NULL DEFAULT '{}';
    CREATE INDEX described ON features (path, label, split, metadata);
    INSERT INTO about VALUES ('dtype', 'float32'), ('version', '');
    """,
    2: f"""
    ALTER TABLE features ADD COLUMN gallery TEXT NOT NULL DEFAULT '{OWN}';
    UPDATE features SET gallery = {_GALLERY_BEFORE};
    DROP INDEX described;
    {_GALLERIES}""",
}
READABLE = 2
"""The earliest version that is read where it cannot be migrated, as on a read-only disk."""
_VIEWS_OF_2 = f"""
CREATE TEMP VIEW features AS SELECT *, {_GALLERY_BEFORE} AS gallery FROM main.features;
CREATE TEMP VIEW galleries AS SELECT '' AS folder, '' AS name, 1 AS complete WHERE 0;
CREATE TEMP VIEW files AS SELECT '' AS path, 0 AS size, 0 AS mtime_ns, '' AS digest WHERE 0;
CREATE TEMP VIEW spare AS SELECT '' AS digest, x'' AS vector WHERE 0;
"""

# SQLite's text is UTF-8. The bytes of a file name that is not are surrogates in Python; they are
# stored as this character, which no text has, and one for private use: in another order.
_ESCAPE = "\U0010fffe"
_UNSTORABLE = re.compile(f"[\ud800-\udfff{_ESCAPE}]")
_STORED = re.compile(f"{_ESCAPE}(.)", re.DOTALL)


def _to_sql(value: Any) -> Any:
    if not isinstance(value, str) or not _UNSTORABLE.search(value):
        return value
    return _UNSTORABLE.sub(
        lambda found: _ESCAPE + (found[0] if found[0] == _ESCAPE else chr(ord(found[0]) + 0x800)),
        value,
    )


def _from_sql(text: bytes) -> str:
    value = text.decode()
    if _ESCAPE not in value:
        return value
    return _STORED.sub(
        lambda found: found[1] if found[1] == _ESCAPE else chr(ord(found[1]) - 0x800), value
    )


class Connection(sqlite3.Connection):
    """A connection that takes any text, and that weak references let go when its thread ends.

    Attributes:
        is_writable: False: for reading alone.
    """

    is_writable = True

    def execute(self, sql: str, parameters: Sequence[Any] = (), /) -> sqlite3.Cursor:  # type: ignore[override]
        """As of `sqlite3.Connection`, with text of file names in any bytes."""
        return super().execute(sql, [_to_sql(each) for each in parameters])

    def executemany(self, sql: str, rows: Iterable[Sequence[Any]], /) -> sqlite3.Cursor:  # type: ignore[override]
        """As of `sqlite3.Connection`, with text of file names in any bytes."""
        return super().executemany(sql, ([_to_sql(each) for each in row] for row in rows))


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
    connection.text_factory = _from_sql
    connection.is_writable = _is_writable(path)
    if not connection.is_writable and _version(connection) == "2":
        connection.executescript(_VIEWS_OF_2)
    if connection.is_writable:
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
        elif "because it is a view" in str(error) or name.startswith(
            ("SQLITE_READONLY", "SQLITE_PERM", "SQLITE_AUTH", "SQLITE_CANTOPEN")
        ):
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


def fingerprint_mismatch(path: Path, stored: str, wanted: str) -> UserError:
    """The error for a store whose vectors another encoder made.

    Args:
        path: of the store.
        stored: fingerprint in the store.
        wanted: fingerprint of the encoder in use.
    """
    (model, _, theirs), (our_model, _, ours) = stored.partition(" "), wanted.partition(" ")
    what = "by another model"
    if model == our_model:
        what = f"with test-time augmentation {theirs or 'none'}, and {ours or 'none'} is configured"
    return UserError(
        f"{path}: made {what}; move the file away and run cbir extract --run {path.parent}"
    )


def dtype_mismatch(path: Path, stored: str, wanted: str) -> UserError:
    """The error for a store of another number format than is configured.

    Args:
        path: of the store.
        stored: format of its vectors.
        wanted: search.dtype.
    """
    return UserError(
        f"{path}: holds {stored} vectors, and search.dtype is {wanted}; put search.dtype back, or "
        f"move the file away and run cbir extract --run {path.parent}"
    )


def create_file(path: Path, about: Mapping[str, str]) -> None:
    """Create an empty store with these values in its table `about`.

    It takes its place only when it is whole: a kill leaves no store, or an empty one.
    """
    with replacing(path) as temporary, reporting(path):
        connection = connect(temporary)
        with connection:
            connection.executescript(f"BEGIN; {SCHEMA}")
            rows = {"schema_version": str(SCHEMA_VERSION), **about}
            connection.executemany("INSERT INTO about VALUES (?, ?)", list(rows.items()))
        connection.close()


def migrate(connection: Connection, version: int) -> None:
    """Bring a store of an earlier version to this one, a version in one transaction."""
    for each in range(version, SCHEMA_VERSION):
        with connection:
            connection.executescript(f"BEGIN; {MIGRATIONS[each]}")
            connection.execute(
                "UPDATE about SET value = ? WHERE key = 'schema_version'", (str(each + 1),)
            )


def _version(connection: Connection) -> str | None:
    try:
        row = connection.execute("SELECT value FROM about WHERE key = 'schema_version'").fetchone()
    except sqlite3.DatabaseError:  # reported by whoever reads the store
        return None
    return None if row is None else str(row[0])


def _is_writable(path: Path) -> bool:
    existing = path if path.exists() else path.parent
    return os.access(existing, os.W_OK) and os.access(path.parent, os.W_OK)


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0
