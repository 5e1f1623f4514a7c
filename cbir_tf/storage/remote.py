"""Data and results on S3: fetched into a mirror on this machine, and sent back when changed.

Three states of a file are compared: here, on S3, and when the two were last equal. A change on one
side is copied to the other; a file changed on both sides is an error.
"""

from __future__ import annotations

import hashlib
import sqlite3
from collections.abc import Iterable, Iterator, Mapping
from contextlib import closing, contextmanager, suppress
from itertools import chain
from pathlib import Path
from threading import Lock
from typing import Any

from cbir_tf.errors import UserError
from cbir_tf.parallel import in_parallel
from cbir_tf.progress import logger, progress
from cbir_tf.storage.addresses import address_of, is_mirrored, key_of, mirror, path_of, place_of
from cbir_tf.storage.files import checkpoint_databases, replacing, sha256
from cbir_tf.storage.s3 import connect, reporting

Object = tuple[str, int]  # ETag, which changes with the content, and size in bytes
Stat = tuple[int, int]  # size in bytes and modification time in ns of a file here

LAST = ("last.npz", "model.npz", "model.keras", "config.yaml", "SHA256SUMS")
"""Files that make a run or a release complete: sent after all others, in this order."""
THREADS = 16
PART = 8 * 2**20  # bytes in a part of a large file; S3 takes at most 10,000 parts

_settled: set[Path] | None = None  # while a command runs, the places it has looked up


def local(place: str | Path, missing_ok: bool = False) -> Path:
    """The path to read: of an address, what is new or changed below it is fetched first.

    Within `synchronized` an address is looked up once: a command sees one state of its data.

    Raises:
        UserError: not a valid address, no access, changes on both sides, or nothing there, which
            `missing_ok` allows.
    """
    path = path_of(place)
    if is_mirrored(path) and not _is_settled(path):
        with _Mirror.open(path) as opened:
            opened.fetch(path, missing_ok)
        if _settled is not None:
            _settled.add(path)
    return path


def fetch_missing(paths: Iterable[Path]) -> None:
    """Fetch the places that have no file here; those not on S3 either are left out."""
    missing = [each for each in paths if is_mirrored(each) and not each.is_file()]
    if missing:
        with _Mirror.open(missing[0]) as opened:
            found = zip(missing, in_parallel(opened.head, missing, THREADS), strict=True)
            opened.download({place: now for place, now in found if now})


def send(path: Path, overwrite: bool = False) -> None:
    """Send what is new or changed at a place; with `overwrite` whatever is there, else a UserError
    names a file changed on both sides, and what is gone here is deleted there.
    """
    with _Mirror.open(path) as opened:
        opened.send(path, overwrite)


@contextmanager
def synchronized(runs: Iterable[Path] = (), outputs: Iterable[Path] = ()) -> Iterator[None]:
    """Fetch runs before the block, and send what it has changed after it, however it ends.

    Args:
        runs: folders that are read and written; here and below, paths outside the mirror pass.
        outputs: files or folders that are only written, in place of what is there.

    Raises:
        UserError: as `send`; logged instead if the block itself has failed.
    """
    global _settled  # noqa: PLW0603
    runs, outputs = ([each for each in some if is_mirrored(each)] for some in (runs, outputs))
    places = [*((each, False) for each in runs), *((each, True) for each in outputs)]
    _settled = set()
    try:
        for path in runs:
            local(path, missing_ok=True)
        for path in outputs:
            with _Mirror.open(path) as opened:  # no access: better now than after hours of work
                opened.head(path)
        try:
            yield
        except BaseException:
            try:
                for path, overwrite in places:
                    send(path, overwrite)
            except UserError as error:
                logger.warning("%s", error)
            raise
        for path, overwrite in places:
            send(path, overwrite)
    finally:
        _settled = None


def _is_settled(path: Path) -> bool:
    return any(path.is_relative_to(each) for each in _settled or ())


class _Mirror:
    """S3, and the table of the states in which each file and its object were last equal."""

    def __init__(self, system: Any, table: sqlite3.Connection) -> None:
        self._system, self._table = system, table
        self._lock = Lock()  # SQLite's connection is for one thread at a time

    @classmethod
    @contextmanager
    def open(cls, path: Path) -> Iterator[_Mirror]:
        """For work on a place, which errors name."""
        system, file = connect(path), mirror().with_suffix(".db")
        try:
            file.parent.mkdir(parents=True, exist_ok=True)
            table = sqlite3.connect(file, timeout=30, isolation_level=None, check_same_thread=False)
            with closing(table), reporting(path):
                table.execute("PRAGMA journal_mode = WAL")
                table.execute(
                    "CREATE TABLE IF NOT EXISTS objects (path TEXT PRIMARY KEY, etag TEXT NOT NULL,"
                    " size INTEGER NOT NULL, mtime_ns INTEGER NOT NULL) WITHOUT ROWID"
                )
                yield cls(system, table)
        except sqlite3.DatabaseError as error:
            raise UserError(f"{file}: {error}; free some space, or delete the file") from error

    def head(self, place: Path) -> Object | None:
        """The object of a place; None if there is none (or a folder of objects)."""
        try:
            with reporting(place):
                found = self._system.info(key_of(place))
        except FileNotFoundError:
            return None
        return (found["ETag"], found["size"]) if found["type"] == "file" else None

    def fetch(self, path: Path, missing_ok: bool) -> None:
        """Update the mirror at a place; what has changed only here stays."""
        checkpoint_databases(path)
        there, known = self._objects(path), self._known(path)
        if not there and not missing_ok:
            raise UserError(f"{address_of(path)}: nothing there; check the address")
        for place in (each for each in known if each not in there and not _is_settled(each)):
            if _stat(place) == known[place][1]:
                place.unlink()
                with suppress(OSError):  # at the first that is not empty
                    for folder in place.parents:
                        folder.rmdir()
            self._forget(place)
        wanted = {}
        for place, now in there.items():
            here, (then, stat) = _stat(place), known.get(place, (None, None))
            if _is_settled(place) or (here and now == then):
                continue
            if here and here != stat:
                self._check_equal(place, now)
                self._note(place, now, here)
            else:
                wanted[place] = now
        self.download(wanted)

    def download(self, objects: Mapping[Path, Object]) -> None:
        """Fetch objects to their places, each whole or not at all."""
        folders = {parent for place in objects for parent in place.parents}
        clash = [each for each in objects if each in folders or each.is_dir()]
        for place in [*clash, *(each for each in folders if each.is_file())]:
            raise UserError(
                f"{address_of(place)}: is an object, and a folder of others; rename one there, or "
                f"if it is gone there, delete its copy below {mirror()}"
            )

        def download(place: Path) -> None:
            with reporting(place), replacing(place) as temporary:
                self._system.get_file(key_of(place), str(temporary), max_concurrency=1)
                stat = _stat(temporary)
                if stat is None or stat[0] != objects[place][1]:
                    raise UserError(f"{address_of(place)}: changed meanwhile; repeat the command")
                place.unlink(missing_ok=True)  # first, so that a kill leaves no wrong note
                self._note(place, objects[place], stat)

        done = in_parallel(download, list(objects), THREADS)
        for _ in progress(done, len(objects), "fetching", "files") if objects else ():
            pass

    def send(self, path: Path, overwrite: bool) -> None:
        """Upload what has changed. A run is absent there, by its config.yaml, while replaced."""
        checkpoint_databases(path)
        known, config = self._known(path), path / "config.yaml"
        here = {place: _stat(place) for place in ([path] if path.is_file() else path.rglob("*"))}
        here = {place: stat for place, stat in here.items() if stat and not _is_temporary(place)}
        changed = {each for each in here if each not in known or known[each][1] != here[each]}
        gone = set() if overwrite else known.keys() - here.keys()
        if not changed and not gone:
            return
        there = {} if overwrite else self._objects(path)
        for place in changed | gone:
            if place in there and (place not in known or known[place][0] != there[place]):
                self._check_equal(place, there[place])
        if not overwrite:
            changed |= here.keys() - there.keys()  # deleted there, but a run is there whole
        if config in there and {p.name for p in (changed | gone) & there.keys()} & set(LAST[1:]):
            self._delete(config)
            changed |= {config} & here.keys()
        first = [each for each in sorted(changed) if each.name not in LAST]
        last = [each for name in LAST for each in sorted(changed) if each.name == name]
        done = chain(in_parallel(self._upload, first, THREADS), map(self._upload, last))
        for _ in progress(done, len(changed), f"sending {address_of(path)}", "files"):
            pass
        for place in sorted(gone - {config}):
            self._delete(place)
        logger.info("%s: %d files sent, %d deleted", address_of(path), len(changed), len(gone))

    def _upload(self, place: Path) -> None:
        stat, digest = _stat(place), {"sha256": sha256(place)}
        size = max(PART, place.stat().st_size // 9_000)
        with reporting(place):
            self._system.put_file(
                str(place), key_of(place), chunksize=size, max_concurrency=4, Metadata=digest
            )
        now = self.head(place)
        if now and stat:
            self._note(place, now, stat)

    def _delete(self, place: Path) -> None:
        self._system.rm_file(key_of(place))
        self._forget(place)

    def _objects(self, path: Path) -> dict[Path, Object]:
        """The object of a place, or all below it, by their places."""
        key = key_of(path)
        single = self.head(path) if "/" in key else None
        if single:
            return {path: single}
        listed = self._system.find(key, detail=True)
        names = [name for name in listed if not name.endswith("/")]  # such stand for folders
        unusable = [name for name in names if place_of(name) is None]
        if unusable:
            logger.warning("%d objects left out, not a file name: %r", len(unusable), unusable[0])
        placed = ((place_of(name), listed[name]) for name in names)
        return {place: (each["ETag"], each["size"]) for place, each in placed if place}

    def _check_equal(self, place: Path, now: Object) -> None:
        """Raise a UserError unless a file and an object are equal, by MD5 or our own digest."""
        if place.is_file() and place.stat().st_size == now[1]:
            with place.open("rb") as file:
                md5 = hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False))
            if md5.hexdigest() == now[0].strip('"'):
                return
            if self._system.metadata(key_of(place)).get("sha256") == sha256(place):
                return
        raise UserError(
            f"{address_of(place)}: changed there and also here since both were equal; delete the "
            f"one not wanted, there or below {mirror()}, and repeat the command"
        )

    def _known(self, path: Path) -> dict[Path, tuple[Object, Stat]]:
        """The last equal states at a place or below it."""
        query = "SELECT * FROM objects WHERE path = ?1 OR path > ?1 || '/' AND path < ?1 || '0'"
        rows = self._table.execute(query, (key_of(path),)).fetchall()  # 0 comes after /
        return {mirror() / key: ((etag, size), (size, time)) for key, etag, size, time in rows}

    def _note(self, place: Path, now: Object, here: Stat) -> None:
        row = (key_of(place), *now, here[1])
        with self._lock:
            self._table.execute("INSERT OR REPLACE INTO objects VALUES (?, ?, ?, ?)", row)

    def _forget(self, place: Path) -> None:
        with self._lock:
            self._table.execute("DELETE FROM objects WHERE path = ?", (key_of(place),))


def _stat(path: Path) -> Stat | None:
    """None where there is no file."""
    return (path.stat().st_size, path.stat().st_mtime_ns) if path.is_file() else None


def _is_temporary(path: Path) -> bool:
    """Whether a file is unfinished, hence hidden, or one that SQLite has beside a database."""
    return path.name.startswith(".") or path.name.endswith(("-wal", "-shm", "-journal"))
