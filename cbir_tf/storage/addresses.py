"""Addresses s3://bucket/key as paths: each has one place in a mirror below the cache folder.

All other modules take paths. `path_of` reads what the user writes; `address_of` turns a place of
the mirror back into its address, which a run stores because it is valid on any machine.
"""

from __future__ import annotations

import os
import re
from pathlib import Path

from cbir_tf.errors import UserError
from cbir_tf.storage.files import cache_folder

_SCHEME = re.compile(r"[a-z][a-z0-9+.-]+://|s3:", re.IGNORECASE)
_ADDRESS = re.compile(r"s3://([a-z0-9][a-z0-9._-]*(?:/.+?)?)/?", re.IGNORECASE | re.DOTALL)
# A key that no file can have as its name (\ud800 to \udfff: not UTF-8), or that s3fs would cut.
_UNUSABLE = re.compile(r"[\0\ud800-\udfff]|\?versionId=|(^|/)\.{0,2}(/|\Z)")


def mirror() -> Path:
    """The folder of the mirror; it holds one folder for each bucket."""
    return cache_folder() / "s3"


def path_of(place: str | Path) -> Path:
    """The place of an address in the mirror; a path is returned unchanged.

    Raises:
        UserError: an address of another kind, or not a valid one; or neither text nor a path.
    """
    if not isinstance(place, (str, os.PathLike)):
        raise UserError(f"{place!r}: not a path; give text or a pathlib.Path")
    text = str(place)
    if not _SCHEME.match(text):
        return Path(place)
    if not text.lower().startswith("s3:"):
        raise UserError(f"{text}: not supported; use an address s3://bucket/key or a path")
    match = _ADDRESS.fullmatch(text)
    path = place_of(match[1]) if match else None
    if path is None:
        raise UserError(f"{text}: not a valid address; write s3://bucket/key, no empty parts or ..")
    return path


def place_of(key: str) -> Path | None:
    """The place of bucket/key, or of a bucket; None if no file can have that name."""
    return None if _UNUSABLE.search(key) else mirror() / key


def is_mirrored(path: Path) -> bool:
    """Whether a path is the place of an address."""
    return path != mirror() and path.is_relative_to(mirror())


def key_of(path: Path) -> str:
    """bucket/key of a place, or the bucket alone."""
    return path.relative_to(mirror()).as_posix()


def address_of(path: Path) -> str:
    """The address of a place in the mirror; any other path as text."""
    return f"s3://{key_of(path)}" if is_mirrored(path) else str(path)


def as_addresses(text: str) -> str:
    """Replace every place of the mirror in a text by its address."""
    return text.replace(f"{mirror()}{os.sep}", "s3://")


def checked(value: object) -> object:
    """`path_of` as a validator of pydantic: other values pass, a UserError becomes a ValueError."""
    try:
        return path_of(value) if isinstance(value, (str, Path)) else value
    except UserError as error:
        raise ValueError(str(error)) from None
