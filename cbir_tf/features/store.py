"""The feature store: one SQLite file of ids, paths, labels, metadata and vectors.

All statements stand in one class, long as it is: they share a connection and its transactions.
"""

from __future__ import annotations

import json
import secrets
import threading
import weakref
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import compress
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np

from cbir_tf.config.arguments import texts
from cbir_tf.data.text import nfc
from cbir_tf.errors import UserError
from cbir_tf.features.file_states import State
from cbir_tf.features.filters import COLUMNS, rows_meeting
from cbir_tf.features.record import UNFINISHED, GalleryFolder, Record
from cbir_tf.features.store_file import (
    READABLE,
    SCHEMA_VERSION,
    Connection,
    connect,
    create_file,
    dtype_mismatch,
    fingerprint_mismatch,
    migrate,
    reporting,
)
from cbir_tf.storage.addresses import address_of, path_of
from cbir_tf.types import Embeddings

__all__ = ["FeatureStore", "Record"]

READ_AT_ONCE = 4096
DTYPES = {"float32": "<f4", "float16": "<f2"}


class FeatureStore:
    """Vectors by id in a SQLite file, all of one encoder.

    Every change is one transaction, so that an interruption leaves whole batches. Safe to use from
    several threads, each of which has a connection. Use as a context manager, or `close`.

    Example:
        >>> import tempfile
        >>> path = Path(tempfile.mkdtemp()) / "features.db"
        >>> with FeatureStore.create(path, "fingerprint", ["cat", "dog"]) as store:
        ...     store.write([Record("a", None, 1, "train", "", {"year": 2024})], np.ones((1, 2)))
        ...     store.select(["label=dog", "year>=2020"]).tolist()
        ...     store.embeddings("train").vectors.tolist()
        ['a']
        [[1.0, 1.0]]
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._of_thread = threading.local()
        self._connections: weakref.WeakSet[Connection] = weakref.WeakSet()

    @classmethod
    def create(
        cls,
        path: Path,
        encoder_fingerprint: str,
        class_names: Sequence[str],
        dtype: str = "float32",
    ) -> FeatureStore:
        """Open the store of an encoder; create it where it is missing.

        Args:
            path: the file.
            encoder_fingerprint: of the encoder that makes the vectors
                (`cbir_tf.features.views.encoder_fingerprint`).
            class_names: names the labels count into.
            dtype: of the stored vectors, float32 or float16.

        Raises:
            UserError: the file is not a store, of a later version, or of another encoder or dtype.
        """
        if not path.exists():
            for left in ("-wal", "-shm"):  # of a killed process, whose store was deleted since
                path.with_name(path.name + left).unlink(missing_ok=True)
            about = {
                "model": encoder_fingerprint,
                "class_names": json.dumps(list(class_names), ensure_ascii=False),
                "dtype": dtype,
                "version": "",
            }
            create_file(path, about)
        store = cls.open(path)
        if store.encoder_fingerprint != encoder_fingerprint:
            error = fingerprint_mismatch(path, store.encoder_fingerprint, encoder_fingerprint)
            store.close()
            raise error
        if store.dtype != dtype:
            error = dtype_mismatch(path, store.dtype, dtype)
            store.close()
            raise error
        return store

    @classmethod
    def open(cls, path: Path) -> FeatureStore:
        """Open an existing store; one of an earlier version is migrated.

        Raises:
            UserError: the file is missing, not a store, or a store of a later version.
        """
        if not path.is_file():
            raise UserError(f"{path}: no features yet; run cbir extract --run {path.parent}")
        with reporting(path):
            store = cls(path)
            text = store._about("schema_version")
        version = int(text) if text.isdecimal() else 0
        if not 1 <= version <= SCHEMA_VERSION:
            store.close()
            raise UserError(
                f"{path}: a feature store of version {text}, this program reads up to version "
                f"{SCHEMA_VERSION}; update cbir-tf to read it"
            )
        with reporting(path):
            if store._connection.is_writable or version < READABLE:
                migrate(store._connection, version)
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
        for connection in list(self._connections):
            connection.close()

    @property
    def _connection(self) -> Connection:
        """The connection of the thread that asks: SQLite's are for one thread at a time."""
        connection: Connection | None = getattr(self._of_thread, "connection", None)
        if connection is None:
            connection = connect(self.path)
            self._of_thread.connection = connection
            self._connections.add(connection)
        return connection

    @property
    def encoder_fingerprint(self) -> str:
        """Which encoder made the vectors (`cbir_tf.features.views.encoder_fingerprint`)."""
        return self._about("model")

    @property
    def dtype(self) -> str:
        """Number format of the stored vectors: float32 or float16."""
        return self._about("dtype")

    @property
    def dimensions(self) -> int | None:
        """D of the stored vectors; None where there are none."""
        with reporting(self.path):
            row = self._connection.execute("SELECT length(vector) FROM features LIMIT 1").fetchone()
        return (
            None if row is None else int(row[0]) // np.dtype(DTYPES[self._about("dtype")]).itemsize
        )

    @property
    def class_names(self) -> tuple[str, ...]:
        """Names the labels count into, in NFC."""
        return tuple(nfc(name) for name in json.loads(self._about("class_names")))

    @property
    def version(self) -> str:
        """A random name of the present content, which changes with every write."""
        return self._about("version")

    @property
    def splits(self) -> list[str]:
        """Splits that any image is in."""
        rows = self._connection.execute("SELECT DISTINCT split FROM features ORDER BY 1")
        return [name for (name,) in rows if name]

    @property
    def metadata_names(self) -> list[str]:
        """Columns of metadata that any image has, in NFC."""
        return sorted(set(map(nfc, self._metadata_keys())))

    def _metadata_keys(self) -> list[str]:
        rows = self._connection.execute(
            "SELECT DISTINCT json_each.key FROM features, json_each(metadata)"
        )
        return [name for (name,) in rows]

    def write(
        self,
        records: Sequence[Record],
        vectors: np.ndarray,
        class_names: Sequence[str] | None = None,
    ) -> None:
        """Add records with their (N, D) vectors, replacing those of the same id.

        Args:
            records: N images.
            vectors: theirs.
            class_names: names their labels count into, if these are more than the store has.

        Raises:
            UserError: the disk is full or the file cannot be written, or another process has added
                other classes meanwhile; nothing is half-written.
        """
        dtype = DTYPES[self._about("dtype")]
        rows = [
            (
                record.id,
                *record.described,
                record.digest,
                np.asarray(vector, dtype=dtype).tobytes(),
            )
            for record, vector in zip(records, vectors, strict=True)
        ]
        self._change(
            rows,
            "INSERT OR REPLACE INTO features "
            "(id, path, label, split, metadata, gallery, digest, vector) "
            "VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
            class_names=class_names,
        )

    def describe(self, records: Sequence[Record]) -> None:
        """Change path, label, split, metadata and gallery of stored images; their vectors stay.

        Raises:
            UserError: the disk is full or the file cannot be written; nothing is half-written.
        """
        rows = [(*record.described, record.id) for record in records]
        self._change(
            rows,
            "UPDATE features SET path = ?, label = ?, split = ?, metadata = ?, gallery = ? "
            "WHERE id = ?",
        )

    def remove(self, ids: Iterable[str], spare: bool = False) -> None:
        """Remove images; ids that are not stored are ignored.

        Args:
            ids: of the images.
            spare: keep their vectors for `vectors_of`, as the files may return.

        Raises:
            UserError: the file cannot be written; nothing is half-removed.
        """
        if spare:
            first = "INSERT OR REPLACE INTO spare SELECT digest, vector FROM features WHERE id = ?"
        else:
            first = "DELETE FROM spare WHERE digest = (SELECT digest FROM features WHERE id = ?)"
        self._change([(str(id_),) for id_ in ids], first, "DELETE FROM features WHERE id = ?")

    def vectors_of(self, digests: Sequence[str]) -> dict[str, np.ndarray]:
        """(D,) float32 vectors of images of this content that are or were stored, by digest."""
        dtype = DTYPES[self._about("dtype")]
        with reporting(self.path):
            rows = self._connection.execute(
                "SELECT digest, vector FROM spare WHERE digest IN (SELECT value FROM json_each(?1))"
                " UNION ALL SELECT digest, vector FROM features "
                "WHERE digest IN (SELECT value FROM json_each(?1))",
                (json.dumps([each for each in digests if each]),),
            )
            return {
                digest: np.frombuffer(vector, dtype).astype(np.float32) for digest, vector in rows
            }

    def file_states(self) -> dict[str, State]:
        """Size, modification time and digest of files that were read, by path or address."""
        with reporting(self.path):
            rows = self._connection.execute("SELECT path, size, mtime_ns, digest FROM files")
            return {path: (size, time, digest) for path, size, time, digest in rows}

    def note_files(self, states: Mapping[str, State]) -> None:
        """Keep the states of files for `file_states`."""
        if states:
            rows = [(path, *state) for path, state in states.items()]
            with reporting(self.path), self._connection:
                self._connection.executemany(
                    "INSERT OR REPLACE INTO files VALUES (?, ?, ?, ?)", rows
                )

    def galleries(self) -> list[GalleryFolder]:
        """The galleries of further folders, a row for each folder, in order of its path."""
        with reporting(self.path):
            rows = self._connection.execute("SELECT folder, name, complete FROM galleries")
            return [
                GalleryFolder(name, path_of(folder), bool(complete))
                for folder, name, complete in rows
            ]

    def set_gallery(self, gallery: GalleryFolder) -> None:
        """Note which gallery a folder belongs to, and whether all of it has been extracted."""
        row = (address_of(gallery.folder), gallery.name, gallery.complete)
        self._change([row], "INSERT OR REPLACE INTO galleries VALUES (?, ?, ?)")

    def rename_gallery(self, name: str, new: str) -> None:
        """Give the images of a gallery to another one."""
        self._change([(new, name)], "UPDATE features SET gallery = ? WHERE gallery = ?")

    def forget_folders(self, folders: Sequence[Path]) -> None:
        """Forget which gallery folders belong to; images stay."""
        rows = [(address_of(folder),) for folder in folders]
        self._change(rows, "DELETE FROM galleries WHERE folder = ?")

    def extend_classes(self, names: Sequence[str]) -> tuple[str, ...]:
        """Add class names that are not yet there to the end; returns all."""
        extended = self.extended_classes(names)
        if extended != self.class_names:
            with reporting(self.path), self._connection:
                self._set("class_names", json.dumps(extended, ensure_ascii=False))
        return extended

    def extended_classes(self, names: Sequence[str]) -> tuple[str, ...]:
        """What `extend_classes` returns, without writing it."""
        known = self.class_names
        return (*known, *(name for name in dict.fromkeys(map(nfc, names)) if name not in known))

    def unfinished(self) -> np.ndarray:
        """Ids of the images in galleries that are not searched yet, ascending."""
        with reporting(self.path):
            rows = self._connection.execute(
                "SELECT id FROM features WHERE gallery LIKE ? ORDER BY id", (f"%{UNFINISHED}",)
            ).fetchall()
        return np.array(sorted(id_ for (id_,) in rows), dtype=np.str_)

    def select(
        self,
        conditions: Sequence[str] = (),
        split: str | None = None,
        gallery: str | None = None,
    ) -> np.ndarray:
        """Ids of the images that meet all conditions (`cbir_tf.features.filters`), ascending.

        Args:
            conditions: as text.
            split: of the images; None: any.
            gallery: of the images; None: any.

        Raises:
            UserError: a malformed condition, or an unknown column or class.
        """
        conditions = texts(conditions, "where")
        where, values = _where(split, gallery)
        with reporting(self.path), self._unchanging():
            rows = self._connection.execute(
                f"SELECT id FROM features {where} ORDER BY id", values
            ).fetchall()
            ids = sorted(id_ for (id_,) in rows)
            if not conditions:
                return np.array(ids, dtype=np.str_)
            names = self.metadata_names
            kept = rows_meeting(conditions, self.class_names, names, self._cells)
            met = set(compress(self._cells("id"), kept.tolist()))
        return np.array([id_ for id_ in ids if id_ in met], dtype=np.str_)

    def _cells(self, column: str) -> list[Any]:
        """The values of a column in all images, in order of id; None where there is none."""
        if column in COLUMNS:
            rows = self._connection.execute(f"SELECT {column} FROM features ORDER BY id")
            return [value for (value,) in rows]
        names = [name for name in self._metadata_keys() if nfc(name) == column]
        documents = self._connection.execute("SELECT metadata FROM features ORDER BY id")
        values = (json.loads(text) for (text,) in documents)
        return [next((each[name] for name in names if name in each), None) for each in values]

    def record(self, id_: str) -> Record | None:
        """One image, None where there is none of that id."""
        found = self._records("WHERE id = ?", (id_,))
        return found[0] if found else None

    def record_at(self, path: Path) -> Record | None:
        """The image of a file, None where it is not stored."""
        found = self._records("WHERE path = ? ORDER BY id LIMIT 1", (address_of(path),))
        return found[0] if found else None

    def records_of(self, ids: Sequence[str]) -> list[Record]:
        """Some images, in order of id; ids that are not stored are ignored."""
        return self._records(
            "WHERE id IN (SELECT value FROM json_each(?)) ORDER BY id",
            (json.dumps(list(ids), ensure_ascii=False),),
        )

    def records(self, split: str | None = None) -> list[Record]:
        """All images, or those of one split, in order of id."""
        where, values = _where(split)
        return self._records(f"{where} ORDER BY id", values)

    def digests(self) -> dict[str, str]:
        """Digest of each image's encoded bytes by id, in order of id."""
        with reporting(self.path):
            rows = self._connection.execute("SELECT id, digest FROM features ORDER BY id")
            return dict(sorted(rows.fetchall()))

    def embeddings(self, split: str | None = None) -> Embeddings:
        """The vectors of one split, or of everything, in order of id, as float32."""
        where, values = _where(split)
        ids: list[str] = []
        labels: list[int] = []
        with reporting(self.path), self._unchanging():
            execute = self._connection.execute
            (count,) = execute(f"SELECT count(*) FROM features {where}", values).fetchone()
            first = execute(f"SELECT length(vector) FROM features {where} LIMIT 1", values)
            (size,) = first.fetchone() or (0,)
            dtype = np.dtype(DTYPES[self._about("dtype")])
            # Not joined from their bytes: NumPy asks for large pages of memory, without which a
            # search of many vectors takes half as long again.
            vectors = np.empty((count, size // dtype.itemsize), dtype)
            rows = execute(f"SELECT id, label, vector FROM features {where} ORDER BY id", values)
            while block := rows.fetchmany(READ_AT_ONCE):
                some_ids, some_labels, some_vectors = zip(*block, strict=True)
                read = np.frombuffer(b"".join(some_vectors), dtype)
                vectors[len(ids) : len(ids) + len(block)] = read.reshape(len(block), -1)
                ids += some_ids
                labels += some_labels
        found = Embeddings(np.array(ids, dtype=np.str_), vectors, np.array(labels, dtype=np.int64))
        in_order = (found.ids[:-1] <= found.ids[1:]).all()  # not those of names in other bytes
        return found if in_order else found.take(np.argsort(found.ids))

    def _records(self, clauses: str, values: Sequence[str]) -> list[Record]:
        with reporting(self.path):
            rows = self._connection.execute(
                "SELECT id, path, label, split, digest, metadata, gallery FROM features " + clauses,
                values,
            ).fetchall()
        return [
            Record(id_, path and path_of(path), label, split, digest, json.loads(metadata), gallery)
            for id_, path, label, split, digest, metadata, gallery in sorted(rows)
        ]

    @contextmanager
    def _unchanging(self) -> Iterator[None]:
        """Read one state of the store within, whatever is written meanwhile."""
        self._connection.execute("BEGIN")
        try:
            yield
        finally:
            self._connection.rollback()

    def _change(
        self,
        rows: Sequence[tuple[Any, ...]],
        *statements: str,
        class_names: Sequence[str] | None = None,
    ) -> None:
        if not rows:
            return
        with reporting(self.path), self._connection:
            self._connection.execute("BEGIN IMMEDIATE")
            if class_names is not None:
                self._set_classes(class_names)
            for each in statements:
                self._connection.executemany(each, rows)
            self._set("version", secrets.token_hex(16))

    def _set_classes(self, names: Sequence[str]) -> None:
        """Make these the class names, unless labels would count into other ones then."""
        known = self.class_names
        if tuple(names[: len(known)]) != known[: len(names)]:
            raise UserError(f"{self.path}: another process has added classes; repeat the command")
        if len(names) > len(known):
            self._set("class_names", json.dumps(list(names), ensure_ascii=False))

    def _set(self, key: str, value: str) -> None:
        self._connection.execute("UPDATE about SET value = ? WHERE key = ?", (value, key))

    def _about(self, key: str) -> str:
        with reporting(self.path):
            found = self._connection.execute("SELECT value FROM about WHERE key = ?", (key,))
            row = found.fetchone()
        return "" if row is None else str(row[0])


def _where(split: str | None, gallery: str | None = None) -> tuple[str, list[str]]:
    columns = {"split": split, "gallery": gallery}
    wanted = {name: value for name, value in columns.items() if value is not None}
    return " AND ".join(["WHERE 1", *(f"{name} = ?" for name in wanted)]), list(wanted.values())
