"""Images whose files are not where they were: gone, or out of reach for the moment.

A file is gone if the folder it was in can be read and has something else in it, or is gone itself.
Below a folder that cannot be read, is empty as the mount point of a drive that is not mounted, or
is a link to nowhere, nothing is known about any file.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from cbir_tf.data.text import nfc
from cbir_tf.features.store import Record
from cbir_tf.storage.addresses import address_of, is_mirrored, path_of


@dataclass(frozen=True)
class Absence:
    """Which of some images are gone, and which are out of reach.

    Attributes:
        gone: images whose files are gone.
        out_of_reach: images that are below a folder that says nothing, by folder and reason.
    """

    gone: tuple[Record, ...]
    out_of_reach: dict[str, tuple[Record, ...]]


def absence_of(records: Sequence[Record], emptied: bool = False) -> Absence:
    """Find out why images were not found.

    Args:
        records: of images that were not found.
        emptied: take an empty folder for what it seems to be.
    """
    why = cache(_reason_of)
    gone: list[Record] = []
    out_of_reach: dict[str, list[Record]] = {}
    for record in records:
        reason = _out_of_reach(place_of(record), why, emptied)
        if reason is None:
            gone.append(record)
        else:
            out_of_reach.setdefault(reason, []).append(record)
    return Absence(tuple(gone), {name: tuple(some) for name, some in out_of_reach.items()})


def place_of(record: Record) -> Path:
    """Where the image of a folder is, which goes by its whole path; or where any other is."""
    place = path_of(record.id)
    if not place.is_absolute() or (record.path and nfc(address_of(record.path)) == record.id):
        return record.path or Path()
    return place


def is_missing(path: Path | None) -> bool:
    """Whether an image's file is not there now; an image without a file, or on S3, is not missing.

    A file that may not be looked at counts as missing.
    """
    return path is not None and not is_mirrored(path) and not os.path.isfile(path)


def _out_of_reach(place: Path, why: Callable[[Path], str], emptied: bool) -> str | None:
    """The nearest folder above a place that is there, if it says nothing, with the reason."""
    for folder in place.parents:
        reason = why(folder)
        if reason == "gone":
            continue
        if not reason or (emptied and reason == "empty"):
            return None
        return f"{folder} ({reason})"
    return None


def _reason_of(folder: Path) -> str:
    """Why a folder says nothing about the files in it; empty text: it does."""
    try:
        with os.scandir(folder) as entries:
            empty = next(entries, None) is None
    except (FileNotFoundError, NotADirectoryError):
        return "a link to nowhere" if folder.is_symlink() else "gone"
    except OSError as error:
        return (error.strerror or str(error)).lower()
    return "empty" if empty and not is_mirrored(folder) else ""
