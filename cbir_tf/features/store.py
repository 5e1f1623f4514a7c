"""The feature store: one SQLite file of ids, paths, labels and float32 vectors."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

import numpy as np

from cbir_tf.errors import UserError
from cbir_tf.types import Embeddings

SCHEMA_VERSION = 1

_SCHEMA = """
CREATE TABLE about (key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE features (
    id TEXT PRIMARY KEY,
    path TEXT,              -- null for images that are not files
    label INTEGER NOT NULL, -- counts into about.class_names; -1 for unlabelled
    split TEXT NOT NULL,
    digest TEXT NOT NULL,   -- SHA-256 of the encoded image
    vector BLOB NOT NULL    -- little-endian float32
) WITHOUT ROWID;
"""


@dataclass(frozen=True)
class Record:
    """One image of the store, without its vector."""

    id: str
    path: Path | None
    label: int
    split: str
    digest: str


class FeatureStore:
    """Vectors by id in a SQLite file, all of one model.

    Every `write` is one transaction, so that an interruption leaves whole batches. Use as a
    context manager, or `close`.
    """

    def __init__(self, path: Path, connection: sqlite3.Connection) -> None:
        self.path = path
        self._connection = connection

    @classmethod
    def create(cls, path: Path, model_digest: str, class_names: Sequence[str]) -> FeatureStore:
        """Open the store of a model, made where it is missing.

        Raises:
            UserError: the file is no store, of another version, or of another model.
        """
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            with _reporting(path):
                connection = _connect(path)
                about = {
                    "schema_version": str(SCHEMA_VERSION),
                    "model": model_digest,
                    "class_names": json.dumps(list(class_names), ensure_ascii=False),
                }
                with connection:
                    connection.executescript(f"BEGIN; {_SCHEMA}")
                    connection.executemany("INSERT INTO about VALUES (?, ?)", about.items())
                connection.close()
        store = cls.open(path)
        if store.model_digest != model_digest:
            store.close()
            raise UserError(
                f"{path}: holds the features of another model; delete the file to extract anew"
            )
        return store

    @classmethod
    def open(cls, path: Path) -> FeatureStore:
        """Open an existing store.

        Raises:
            UserError: no such file, no store, or a store of another version.
        """
        if not path.is_file():
            raise UserError(f"{path}: no features yet; run extract.py --run {path.parent}")
        with _reporting(path):
            store = cls(path, _connect(path))
            version = store._about("schema_version")
        if version != str(SCHEMA_VERSION):
            store.close()
            raise UserError(
                f"{path}: a feature store of version {version}, this program reads version "
                f"{SCHEMA_VERSION}; delete the file to extract anew"
            )
        return store

    def __enter__(self) -> FeatureStore:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the file; safe to call twice."""
        self._connection.close()

    @property
    def model_digest(self) -> str:
        """SHA-256 of the model that made the vectors."""
        return self._about("model")

    @property
    def class_names(self) -> tuple[str, ...]:
        """Names the labels count into."""
        return tuple(json.loads(self._about("class_names")))

    def write(self, records: Sequence[Record], vectors: np.ndarray) -> None:
        """Add records with their (N, D) vectors, replacing those of the same id.

        Raises:
            UserError: the disk is full or the file cannot be written; nothing is half-written.
        """
        rows = [
            (
                record.id,
                None if record.path is None else str(record.path),
                int(record.label),
                record.split,
                record.digest,
                np.ascontiguousarray(vector, dtype="<f4").tobytes(),
            )
            for record, vector in zip(records, vectors, strict=True)
        ]
        with _reporting(self.path), self._connection:
            self._connection.executemany(
                "INSERT OR REPLACE INTO features VALUES (?, ?, ?, ?, ?, ?)", rows
            )

    def records(self, split: str | None = None) -> list[Record]:
        """What is stored, in order of id."""
        where, values = _where(split)
        with _reporting(self.path):
            rows = self._connection.execute(
                f"SELECT id, path, label, split, digest FROM features{where} ORDER BY id", values
            ).fetchall()
        return [
            Record(id_, None if path is None else Path(path), label, split_, digest)
            for id_, path, label, split_, digest in rows
        ]

    def embeddings(self, split: str | None = None) -> Embeddings:
        """The vectors of one split, or of everything, in order of id."""
        where, values = _where(split)
        with _reporting(self.path):
            rows = self._connection.execute(
                f"SELECT id, label, vector FROM features{where} ORDER BY id", values
            ).fetchall()
        joined = b"".join(vector for _, _, vector in rows)
        vectors = np.frombuffer(joined, dtype="<f4")
        return Embeddings(
            np.array([id_ for id_, _, _ in rows], dtype=np.str_),
            vectors.reshape(len(rows), -1) if rows else vectors.reshape(0, 0),
            np.array([label for _, label, _ in rows], dtype=np.int64),
        )

    def _about(self, key: str) -> str:
        row = self._connection.execute("SELECT value FROM about WHERE key = ?", (key,)).fetchone()
        return "" if row is None else str(row[0])


def _where(split: str | None) -> tuple[str, tuple[str, ...]]:
    return ("", ()) if split is None else (" WHERE split = ?", (split,))


def _connect(path: Path) -> sqlite3.Connection:
    connection = sqlite3.connect(path, timeout=30)
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA synchronous = FULL")
    return connection


@contextmanager
def _reporting(path: Path) -> Iterator[None]:
    """Turn SQLite's errors into one line naming the file."""
    try:
        yield
    except sqlite3.DatabaseError as error:
        name = getattr(error, "sqlite_errorname", "")
        if name.startswith(("SQLITE_FULL", "SQLITE_IOERR", "SQLITE_CANTOPEN", "SQLITE_READONLY")):
            raise UserError(
                f"{path}: cannot be written ({error}); free some room or choose another place"
            ) from error
        raise UserError(
            f"{path}: no usable feature store ({error}); delete it to extract anew"
        ) from error
