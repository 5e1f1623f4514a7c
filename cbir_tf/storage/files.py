"""Files that are complete or absent: atomic writes, and what they are checked by."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import secrets
import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from functools import cache
from pathlib import Path
from typing import Any

from cbir_tf.errors import UserError

# Disk full, no permission, read-only file system, a folder in place of a file.
# Not every platform has EDQUOT.
_USER_ERRNO = {
    errno.ENOENT,
    errno.ENOSPC,
    getattr(errno, "EDQUOT", errno.ENOSPC),
    errno.EACCES,
    errno.EPERM,
    errno.EROFS,
    errno.ENOTDIR,
    errno.EISDIR,
    errno.EEXIST,
    errno.EFBIG,
    errno.ENAMETOOLONG,
}


_RESTORE = "restore it, or move it away and repeat the command"


def cache_folder() -> Path:
    """$CBIR_TF_CACHE, else cbir-tf in $XDG_CACHE_HOME, else ~/.cache/cbir-tf."""
    return _cache_folder(os.environ.get("CBIR_TF_CACHE"), os.environ.get("XDG_CACHE_HOME"))


@cache
def _cache_folder(ours: str | None, shared: str | None) -> Path:
    folder = Path(ours) if ours else Path(shared or "~/.cache") / "cbir-tf"
    return folder.expanduser().resolve()


def user_errno(error: OSError) -> bool:
    """Whether an OSError has a cause that the user can remove."""
    return error.errno in _USER_ERRNO or "No space left" in str(error)


def cannot_write(path: Path, error: OSError) -> UserError:
    """The one-line form of a failed write."""
    reason = (os.strerror(error.errno) if error.errno else str(error)).lower()
    return UserError(
        f"{path}: cannot be written: {reason}; free some space or choose another folder"
    )


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside `path` that takes its place when the block succeeds.

    The suffix is kept, as many writers choose the format by it. On any error, and on Ctrl-C, the
    temporary file goes and what was at `path` stays.

    Raises:
        UserError: the disk is full, or the place cannot be written to.
    """
    temporary = path.with_name(f".{path.stem}.{secrets.token_hex(4)}{path.suffix}")
    if path.name.endswith(".weights.h5"):
        temporary = path.with_name(f".{secrets.token_hex(4)}.weights.h5")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield temporary
        with temporary.open("r+b") as written:  # Windows flushes only what may be written
            os.fsync(written.fileno())
        os.replace(temporary, path)
    except OSError as error:
        if user_errno(error):
            raise cannot_write(path, error) from error
        raise
    finally:
        with suppress(OSError):
            temporary.unlink()


@contextmanager
def new_folder(path: Path) -> Iterator[Path]:
    """Yield a temporary folder beside `path` that gets its name when the block succeeds.

    On any error, and on Ctrl-C, it goes. Where another process has made the folder in the
    meantime, that one stays.

    Raises:
        UserError: the disk is full, or the place cannot be written to.
    """
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    try:
        temporary.mkdir(parents=True)
        yield temporary
        for each in (each for each in temporary.rglob("*") if each.is_file()):
            with each.open("r+b") as written:
                os.fsync(written.fileno())
        try:
            temporary.rename(path)
        except OSError:
            if not path.is_dir():
                raise
    except OSError as error:
        if user_errno(error):
            raise cannot_write(path, error) from error
        raise
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def write_text(path: Path, text: str) -> None:
    """Write UTF-8 text whole or not at all.

    Bytes of file names that are not UTF-8 are written as JSON escapes, such as \\udce9.
    """
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8", errors="backslashreplace")


def read_json(path: Path) -> dict[str, Any]:
    """The object in a JSON file.

    Raises:
        UserError: missing, unreadable or damaged.
    """
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(f"{path}: missing; train again with --restart") from None
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise UserError(f"{path}: could not be read: {reason}; check its permissions") from None
    except ValueError as error:
        raise UserError(f"{path}: damaged ({error}); {_RESTORE}") from None
    if not isinstance(values, dict):
        raise UserError(f"{path}: damaged; {_RESTORE}")
    return values


def sha256(source: Path | bytes) -> str:
    """Hexadecimal SHA-256 of a file or of bytes."""
    if isinstance(source, bytes):
        return hashlib.sha256(source).hexdigest()
    with source.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def checkpoint_databases(folder: Path) -> None:
    """Write what SQLite keeps beside the databases of a folder into them, so that each is one file.

    A damaged database is left as it is; whoever reads it reports that.

    Raises:
        UserError: another process is writing to a database.
    """
    for log in folder.glob("*.db-wal"):
        database = log.with_name(log.name.removesuffix("-wal"))
        if not log.stat().st_size or not database.is_file():
            continue
        try:
            with closing(sqlite3.connect(database, timeout=30)) as connection:
                row = connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
        except sqlite3.DatabaseError:
            continue
        _, frames, written = row
        if written < frames:
            raise UserError(f"{database}: another process writes to it; repeat the command later")
