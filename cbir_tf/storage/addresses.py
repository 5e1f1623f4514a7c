"""Addresses of S3, s3://bucket/key, as paths: each has a place of its own in a mirror here.

Everything else takes paths. `path_of` makes one of what the user writes, and a path below the
mirror is an address again by `address_of`: what a run stores is the address, which holds on any
machine. `cbir_tf.storage.remote` fills the mirror and sends what changes in it.
"""

from __future__ import annotations

import os
import re
from functools import cache
from pathlib import Path
from typing import Any

from cbir_tf.errors import UserError

_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+://|s3:", re.IGNORECASE)
_ADDRESS = re.compile(r"s3://([a-z0-9][a-z0-9._-]*)(?:/(?:(.+?)/?)?)?", re.IGNORECASE | re.DOTALL)


def cache_folder() -> Path:
    """$CBIR_TF_CACHE, else cbir-tf in $XDG_CACHE_HOME, else ~/.cache/cbir-tf."""
    return _cache_folder(os.environ.get("CBIR_TF_CACHE"), os.environ.get("XDG_CACHE_HOME"))


@cache
def _cache_folder(ours: str | None, everyones: str | None) -> Path:
    folder = Path(ours) if ours else Path(everyones or "~/.cache") / "cbir-tf"
    return folder.expanduser().resolve()


def mirror() -> Path:
    """The folder that holds a folder a bucket."""
    return cache_folder() / "s3"


def path_of(place: str | Path) -> Path:
    """A path as it is; an address as its path in the mirror, where it need not be yet.

    Raises:
        UserError: an address of another kind, or one that names nothing.
    """
    text = str(place)
    if not _SCHEME.match(text):
        return Path(place)
    if not text.lower().startswith("s3:"):
        raise UserError(f"{text}: of addresses only s3:// is known; give that, or a path")
    match = _ADDRESS.fullmatch(text)
    path = None if match is None else place_of(match[1], match[2] or "")
    if path is None:
        raise UserError(
            f"{text}: no address; write s3://bucket/key, the key without empty parts, '.' and '..'"
        )
    return path


def place_of(bucket: str, key: str) -> Path | None:
    """Where an object is mirrored, an empty key meaning the bucket; None where no file can be.

    No two keys have one place, and none is outside the bucket's folder.
    """
    parts = key.split("/") if key else []
    try:
        key.encode()
    except UnicodeEncodeError:  # bytes of the command line that are no UTF-8
        return None
    if "\0" in key or any(part in ("", ".", "..") for part in parts):
        return None
    return mirror().joinpath(bucket, *parts)


def is_mirrored(path: Path) -> bool:
    """Whether a path is the place of an address."""
    return str(path).startswith(f"{mirror()}/")


def bucket_and_key(path: Path) -> tuple[str, str]:
    """Of what is mirrored at a path; the key is empty for the whole bucket."""
    bucket, _, key = path.relative_to(mirror()).as_posix().partition("/")
    return bucket, key


def address_of(path: Path) -> str:
    """The address of a path in the mirror; any other path as text."""
    return as_addresses(str(path)) if is_mirrored(path) else str(path)


def as_addresses(text: str) -> str:
    """Text with the addresses of all paths of the mirror in it, as the user wrote them."""
    return text.replace(f"{mirror()}/", "s3://")


def checked(value: Any) -> Any:
    """`path_of` for the configuration: whatever is no text, and mistakes, are pydantic's to tell.

    Raises:
        ValueError: what `path_of` says.
    """
    try:
        return path_of(value) if isinstance(value, (str, Path)) else value
    except UserError as error:
        raise ValueError(str(error)) from None
