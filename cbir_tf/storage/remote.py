"""Data and results on S3: fetched into a mirror on this machine, and sent back when changed.

A path of the mirror stands for an address (`cbir_tf.storage.addresses`). `local` brings the mirror
up to date where something is read; `synchronized` sends what a command has changed when it
ends. Both compare three states of each file: here, there, and when the two were last the same
(`cbir_tf.storage.mirror_index`). What changed on one side is taken over by the other; what changed
on both is told, and nothing is overwritten.

The endpoint and who asks are boto3's to know: AWS_ENDPOINT_URL, AWS_PROFILE, AWS_ACCESS_KEY_ID, ...
"""

from __future__ import annotations

import hashlib
import sqlite3
from collections.abc import Iterable, Iterator, Mapping
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

from cbir_tf.errors import UserError, first_line
from cbir_tf.parallel import in_parallel
from cbir_tf.progress import logger, progress
from cbir_tf.storage.addresses import (
    address_of,
    bucket_and_key,
    is_mirrored,
    mirror,
    path_of,
    place_of,
)
from cbir_tf.storage.files import replacing, sha256
from cbir_tf.storage.mirror_index import MirrorIndex, Object, Stat
from cbir_tf.storage.s3_errors import error_code, reporting

Known = Mapping[Path, tuple[Object, Stat]]

THREADS = 16
"""Files under way at a time."""
LAST = ("last.npz", "model.npz", "model.keras", "config.yaml", "SHA256SUMS")
"""What says that the rest of a run or a release is there: sent after it, in this order."""
_BESIDE_DATABASES = ("-wal", "-shm", "-journal")

_settled: set[Path] | None = None
"""While a command runs, the places whose state here is what it goes by; otherwise None."""


def local(place: str | Path, missing_ok: bool = False) -> Path:
    """The path of what is to be read; an address is first brought here, as far as it is not.

    A folder's address stands for all that is below it. Within `synchronized`, a place is looked up
    once: a command sees one state of its data.

    Args:
        place: a path, which is returned as it is, or an address.
        missing_ok: nothing need be at the address.

    Raises:
        UserError: no address, nothing there, no access to it, or changes on both sides.
    """
    path = path_of(place)
    if not is_mirrored(path) or _is_settled(path):
        return path
    with _Store.open(path) as store:
        store.fetch(path, missing_ok)
    if _settled is not None:
        _settled.add(path)
    return path


def fetch_missing(paths: Iterable[Path]) -> None:
    """Fetch those files of the mirror that are not here; one that is not there either is left out.

    Raises:
        UserError: no access.
    """
    missing = [each for each in paths if is_mirrored(each) and not each.is_file()]
    if missing:
        with _Store.open(missing[0]) as store:
            store.fetch_files(missing)


def send(path: Path) -> None:
    """Send a file or folder of the mirror now, as far as it is not there.

    Raises:
        UserError: no access, or something else is there.
    """
    with _Store.open(path) as store:
        store.send(path, overwrite=False)


@contextmanager
def synchronized(runs: Iterable[Path] = (), outputs: Iterable[Path] = ()) -> Iterator[None]:
    """Fetch runs before the block, and send what it has changed after it, however it ends.

    Paths outside the mirror are passed over.

    Args:
        runs: folders that are read and written.
        outputs: files or folders that are only written, in place of what is there.

    Raises:
        UserError: no access, or the run was changed there in the meantime. If the block has failed
            already, that is logged instead.
    """
    global _settled  # noqa: PLW0603
    runs, outputs = ([each for each in some if is_mirrored(each)] for some in (runs, outputs))
    _settled = set()
    try:
        for path in runs:
            local(path, missing_ok=True)
        for path in outputs:
            with _Store.open(path) as store:  # rather now than after hours of work
                store.check_access(path)
        try:
            yield
        except BaseException:
            try:
                _send(runs, outputs)
            except UserError as error:
                logger.warning("%s", error)
            raise
        _send(runs, outputs)
    finally:
        _settled = None


def _send(runs: Iterable[Path], outputs: Iterable[Path]) -> None:
    for paths, overwrite in ((runs, False), (outputs, True)):
        for path in paths:
            with _Store.open(path) as store:
                store.send(path, overwrite)


def _is_settled(path: Path) -> bool:
    return any(path.is_relative_to(each) for each in _settled or ())


class _Store:
    """The objects of S3 and their mirror."""

    def __init__(self, client: Any, index: MirrorIndex) -> None:
        self.client, self.index = client, index

    @classmethod
    @contextmanager
    def open(cls, path: Path) -> Iterator[_Store]:
        """For some work at the place of an address, which errors name."""
        try:
            import boto3
        except ImportError:
            raise UserError(f"{address_of(path)}: needs boto3; pip install 'cbir-tf[s3]'") from None
        with reporting(path), MirrorIndex.open() as index:
            try:
                client = boto3.Session().client("s3")
            except ValueError as error:  # so it says that an endpoint is none
                raise UserError(f"{address_of(path)}: {first_line(error)}") from error
            yield cls(client, index)

    def check_access(self, path: Path) -> None:
        """Raise what `reporting` makes of it unless the bucket is there and may be listed."""
        bucket, key = bucket_and_key(path)
        self.client.list_objects_v2(Bucket=bucket, Prefix=key, MaxKeys=1)

    def there(self, path: Path) -> dict[Path, Object]:
        """The object of an address, or all below it, by their places.

        Raises:
            UserError: one of them is a folder too.
        """
        bucket, key = bucket_and_key(path)
        single = self._head(path) if key else None
        if single is not None:
            return {path: single}
        found: dict[Path, Object] = {}
        unnameable: list[str] = []
        pages = self.client.get_paginator("list_objects_v2")
        for page in pages.paginate(Bucket=bucket, Prefix=key and f"{key}/"):
            for each in page.get("Contents", ()):
                place = place_of(bucket, each["Key"])
                if place is not None:
                    found[place] = Object(each["ETag"], each["Size"])
                elif not each["Key"].endswith("/"):  # such are empty, and stand for folders
                    unnameable.append(each["Key"])
        if unnameable:
            logger.warning(
                "%s: %d objects left out, no file can be named as the first, %r",
                address_of(path),
                len(unnameable),
                unnameable[0],
            )
        _check_folders(path, found)
        return found

    def fetch(self, path: Path, missing_ok: bool) -> None:
        """Bring the mirror of an address up to date; what has changed only here stays."""
        _settle_databases(path)
        there, known = self.there(path), self.index.below(path)
        if not there and not missing_ok:
            raise UserError(f"{address_of(path)}: nothing there; check the address")
        for place in (each for each in known if each not in there and not _is_settled(each)):
            if Stat.of(place) == known[place][1]:
                place.unlink()
                _remove_empty(place.parent, path)
            self.index.remove(place)
        wanted = [
            place
            for place, now in there.items()
            if not _is_settled(place) and self._is_newer(place, now, known)
        ]
        self._download(path, {place: there[place] for place in wanted})

    def fetch_files(self, places: Iterable[Path]) -> None:
        """Fetch single files; those that are not there are passed over."""
        places = list(places)
        found = zip(places, in_parallel(self._head, places, THREADS), strict=True)
        wanted = {place: now for place, now in found if now is not None}
        if wanted:
            self._download(next(iter(wanted)), wanted)

    def _head(self, place: Path) -> Object | None:
        """The one object of this very address."""
        from botocore.exceptions import ClientError

        bucket, key = bucket_and_key(place)
        try:
            head = self.client.head_object(Bucket=bucket, Key=key)
        except ClientError as error:
            if error_code(error) == "404":
                return None
            raise
        return Object(head["ETag"], head["ContentLength"])

    def _is_newer(self, place: Path, now: Object, known: Known) -> bool:
        """Whether the object is to take the place of the file."""
        here = Stat.of(place)
        before, stat = known.get(place, (None, None))
        if here is None:
            return True
        if before == now:
            return False
        if stat == here:
            return True
        if not self._is_same(place, now):
            raise _changed_twice(place)
        self.index.set(place, now, here)
        return False

    def _is_same(self, place: Path, now: Object) -> bool:
        """Whether file and object have one content, by MD5 or by what `_upload` has noted."""
        if place.stat().st_size != now.size:
            return False
        with place.open("rb") as file:
            md5 = hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False))
        if md5.hexdigest() == now.etag.strip('"'):
            return True
        bucket, key = bucket_and_key(place)
        noted = self.client.head_object(Bucket=bucket, Key=key)["Metadata"].get("sha256")
        return bool(noted == sha256(place))

    def _download(self, path: Path, objects: Mapping[Path, Object]) -> None:
        def download(place: Path) -> None:
            _check_place(place)
            bucket, key = bucket_and_key(place)
            with reporting(place), replacing(place) as temporary:
                with temporary.open("wb") as file:
                    self.client.download_fileobj(bucket, key, file, Config=_one_thread())
                # First the old file goes, then the note is made: whenever the program is killed,
                # a file that is here is the one noted, and one that is not is fetched again.
                place.unlink(missing_ok=True)
                stat = Stat.of(temporary)
                assert stat is not None
                self.index.set(place, objects[place], stat)

        if objects:
            done = in_parallel(download, list(objects), THREADS)
            for _ in progress(done, len(objects), f"fetching {address_of(path)}", "files"):
                pass

    def send(self, path: Path, overwrite: bool) -> None:
        """Upload what has changed below a path; without `overwrite`, delete there what has gone.

        A run is not seen there while its configuration or model is being replaced: config.yaml,
        which makes a folder a run, is deleted first and uploaded last.
        """
        _settle_databases(path)
        here, known = _files_below(path), self.index.below(path)
        changed = [each for each in here if each not in known or known[each][1] != here[each]]
        gone = [] if overwrite else [each for each in known if each not in here]
        if not changed and not gone:
            return
        there: Mapping[Path, Object] = {}
        if not overwrite:
            there = self.there(path)
            for place in (*changed, *gone):
                now = there.get(place)
                if now is None or (place in known and known[place][0] == now):
                    continue
                if not (place in here and self._is_same(place, now)):
                    raise _changed_twice(place)
            lost = [each for each in here if each not in there and each not in set(changed)]
            changed += lost  # deleted there: a run is there whole or not at all
        config = path / "config.yaml"
        if config in there and any(each in there for each in (*changed, *gone) if _is_heart(each)):
            self._delete(config)
            changed = [each for each in changed if each != config] + [config] * (config in here)
        self._upload(path, changed)
        for place in gone:
            self._delete(place)
        logger.info("%s: %d files sent, %d deleted", address_of(path), len(changed), len(gone))

    def _upload(self, path: Path, places: Iterable[Path]) -> None:
        def upload(place: Path) -> None:
            bucket, key = bucket_and_key(place)
            stat, more = Stat.of(place), {"Metadata": {"sha256": sha256(place)}}
            assert stat is not None
            with reporting(place), place.open("rb") as file:
                self.client.upload_fileobj(file, bucket, key, more, Config=_one_thread())
                sent = self._head(place)
            if sent is not None:
                self.index.set(place, sent, stat)

        places = list(places)
        first = [each for each in places if each.name not in LAST]
        last = sorted(set(places) - set(first), key=lambda each: LAST.index(each.name))
        with progress(
            total=len(places), description=f"sending {address_of(path)}", unit="files"
        ) as bar:
            for _ in in_parallel(upload, first, THREADS):
                bar.update()
            for place in last:
                upload(place)
                bar.update()

    def _delete(self, place: Path) -> None:
        bucket, key = bucket_and_key(place)
        self.client.delete_object(Bucket=bucket, Key=key)
        self.index.remove(place)


def _is_heart(place: Path) -> bool:
    """Whether a run is another one with another file in this place."""
    return place.name in LAST and place.name != "last.npz"


def _files_below(path: Path) -> dict[Path, Stat]:
    """The file, or all in the folder that are to be sent: not those under way, which are hidden."""
    found = {}
    for place in [path] if path.is_file() else sorted(path.rglob("*")):
        stat = Stat.of(place)
        if stat and not place.name.startswith(".") and not place.name.endswith(_BESIDE_DATABASES):
            found[place] = stat
    return found


def _settle_databases(folder: Path) -> None:
    """Bring into the databases of a folder what SQLite has beside them: they travel alone."""
    for beside in folder.glob("*.db-wal"):
        database = beside.with_name(beside.name.removesuffix("-wal"))
        if not beside.stat().st_size or not database.is_file():
            continue
        try:
            with closing(sqlite3.connect(database, timeout=30)) as connection:
                row = connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
        except sqlite3.DatabaseError:  # damaged, which is told where it is read
            continue
        _, frames, brought = row
        if brought < frames:
            raise UserError(f"{database}: another process writes to it; repeat the command later")


def _remove_empty(folder: Path, top: Path) -> None:
    while folder.is_relative_to(top):
        try:
            folder.rmdir()
        except OSError:  # not empty
            return
        folder = folder.parent


def _check_folders(path: Path, found: Mapping[Path, Object]) -> None:
    folders: set[Path] = set()
    for place in found:
        for parent in place.parents:
            if parent in folders or not parent.is_relative_to(path):
                break
            folders.add(parent)
    both = sorted(folders & found.keys())
    if both:
        raise _file_and_folder(both[0])


def _check_place(place: Path) -> None:
    """Raise a UserError if what is mirrored at another address leaves no room for a file."""
    in_the_way = [place] if place.is_dir() else [each for each in place.parents if each.is_file()]
    if in_the_way:
        raise _file_and_folder(in_the_way[0])


def _file_and_folder(place: Path) -> UserError:
    return UserError(
        f"{address_of(place)}: is an object, and a folder of objects; no file can be both: rename "
        f"one there, or if one has gone, delete its copy below {mirror()}"
    )


def _changed_twice(place: Path) -> UserError:
    return UserError(
        f"{address_of(place)}: changed there, and also here, since both were the same; delete it "
        f"there or its copy below {mirror()}, whichever is not wanted, and repeat the command"
    )


def _one_thread() -> Any:
    """Of each file; they are many."""
    from boto3.s3.transfer import TransferConfig

    return TransferConfig(use_threads=False)
