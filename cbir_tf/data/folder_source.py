"""Images from a folder of class sub-folders, or from a manifest."""

from __future__ import annotations

import csv
import logging
import math
import os
import posixpath
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from cbir_tf.config.data import Data
from cbir_tf.errors import UserError
from cbir_tf.storage.remote import local
from cbir_tf.types import UNLABELLED, ImageSet

log = logging.getLogger(__name__)

IMAGE_SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif"})
SPLIT_NAMES = {
    "train": "train",
    "validation": "validation",
    "val": "validation",
    "valid": "validation",
    "test": "test",
}
CLASS_LAYOUT = "expected class sub-folders with images, or a manifest.csv with path,label"


@dataclass(frozen=True)
class Entry:
    """One image.

    Attributes:
        path: below the root.
        label: name of its class, empty where it has none.
        split: train, validation, test, or empty.
        metadata: further columns, text or numbers by name.
    """

    path: str
    label: str
    split: str
    metadata: Mapping[str, str | float] = field(default_factory=dict)


def folder(data: Data) -> ImageSet:
    """Images of a folder, in one of four layouts.

    - `manifest.csv` (in the folder, or the path itself): columns path, label and optionally split;
      paths relative to the file; an empty label means unlabelled. Further columns are metadata for
      conditions; cells that are numbers are stored as numbers, empty cells are ignored.
    - split folders with class folders, `train/cat/1.jpg`, if all top-level folders are named
      train, validation (val, valid) or test.
    - class folders, `cat/1.jpg`.
    - no class folder that contains an image, `1.jpg` or `train/1.jpg`: all images are unlabelled.

    An id is the path below the root, with forward slashes. Files without a known image suffix are
    left out and counted in the log; hidden files and folders are ignored.

    Raises:
        UserError: the folder or manifest is missing, empty or malformed.
    """
    assert data.path is not None  # checked by the configuration
    root = data.path.expanduser()
    if root.suffix.lower() == ".csv":
        local(root.parent)
        return image_set(root.parent, _read_manifest(root))
    local(root)
    check_folder(root, "check data.path")
    manifest = root / "manifest.csv"
    return image_set(root, _read_manifest(manifest) if manifest.is_file() else _walk_classes(root))


def images_in_folder(path: Path) -> ImageSet:
    """Every image below a folder, at any depth, unlabelled; or the images of its manifest.csv.

    Raises:
        UserError: the folder was not found, or contains no image.
    """
    root = local(path).expanduser()
    check_folder(root, "check --images")
    if (root / "manifest.csv").is_file():
        return image_set(root, _read_manifest(root / "manifest.csv"))
    paths = _image_paths(root)
    if not paths:
        raise UserError(f"{root}: no images found; known suffixes are {_suffixes()}")
    return image_set(root, [Entry(each, "", "") for each in paths])


def image_set(root: Path, entries: list[Entry]) -> ImageSet:
    """Files below a folder; ids are their paths, classes are sorted by name."""
    class_names = tuple(sorted({each.label for each in entries} - {""}))
    numbers = {name: number for number, name in enumerate(class_names)} | {"": UNLABELLED}
    return ImageSet(
        ids=np.array([each.path for each in entries]),
        sources=tuple(root / each.path for each in entries),
        labels=np.array([numbers[each.label] for each in entries]),
        split=np.array([each.split for each in entries]),
        class_names=class_names,
        metadata=tuple(each.metadata for each in entries),
    )


def _suffixes() -> str:
    return " ".join(sorted(IMAGE_SUFFIXES))


def check_folder(root: Path, advice: str) -> None:
    """Raise a UserError unless there is such a folder."""
    if not root.exists():
        raise UserError(f"{root}: no such folder; {advice}")
    if not root.is_dir():
        raise UserError(f"{root}: is a file, not a folder; {advice}")


# --- class folders ------------------------------------------------------------------------------


def _walk_classes(root: Path) -> list[Entry]:
    tops = _class_folders(root)
    by_split = all(each.lower() in SPLIT_NAMES for each in tops)
    entries, strays = [], []
    for path in _image_paths(root):
        parts = path.split("/")
        split = SPLIT_NAMES[parts.pop(0).lower()] if by_split and len(parts) > 1 else ""
        if len(parts) > 1:
            entries.append(Entry(path, parts[0], split))
        else:
            strays.append(Entry(path, "", split))
    if not (entries or strays or tops):
        raise UserError(f"{root}: no images and no sub-folders; {CLASS_LAYOUT}")
    if not (entries or strays):
        raise UserError(
            f"{root}: no images found in class sub-folders; known suffixes are {_suffixes()}"
        )
    if entries and strays:
        first = strays[0].path
        log.warning(
            "%s: %d images outside class folders left out, the first %s", root, len(strays), first
        )
    return entries or strays


def _class_folders(root: Path) -> list[str]:
    return sorted(
        each.name for each in root.iterdir() if each.is_dir() and not each.name.startswith(".")
    )


def _image_paths(root: Path) -> list[str]:
    """Paths of the image files below a folder, relative to it, sorted."""
    paths, others, unnameable = [], 0, 0
    for path in files_below(root):
        if Path(path).suffix.lower() not in IMAGE_SUFFIXES:
            others += 1
        elif not is_unicode(path):
            unnameable += 1
        else:
            paths.append(path)
    if others:
        log.info("%s: %d files without an image suffix left out", root, others)
    if unnameable:
        log.warning("%s: %d images left out, their names are not Unicode", root, unnameable)
    return sorted(paths)


def files_below(root: Path) -> Iterator[str]:
    """Paths of the files below a folder, relative to it, without hidden ones; follows links."""
    seen = set()
    for folder_name, inner, files in os.walk(root, followlinks=True):
        real = os.path.realpath(folder_name)
        if real in seen:  # a link to a parent folder would never end
            inner.clear()
            continue
        seen.add(real)
        inner[:] = sorted(each for each in inner if not each.startswith("."))
        below = Path(folder_name).relative_to(root)
        yield from ((below / name).as_posix() for name in files if not name.startswith("."))


def is_unicode(path: str) -> bool:
    """Whether a path can be an id; bytes that are not UTF-8 become surrogates in Python."""
    try:
        path.encode()
    except UnicodeEncodeError:
        return False
    return True


# --- manifest -----------------------------------------------------------------------------------


def _read_manifest(manifest: Path) -> list[Entry]:
    entries = []
    try:
        with manifest.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.DictReader(file, skipinitialspace=True)
            columns = reader.fieldnames or []
            if not {"path", "label"} <= set(columns):
                raise UserError(
                    f"{manifest}: the first line must name the columns path,label[,split]; "
                    f"it is {','.join(columns)!r}"
                )
            for row in reader:
                entries.append(_manifest_entry(row, f"{manifest} line {reader.line_num}"))
    except FileNotFoundError:
        raise UserError(f"{manifest}: no such manifest; check data.path") from None
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise UserError(
            f"{manifest}: cannot be read as CSV in UTF-8: {error}; save it as CSV in UTF-8"
        ) from None
    if not entries:
        raise UserError(f"{manifest}: lists no images; add a line for each image")
    _check_listed(manifest, entries)
    return entries


def _manifest_entry(row: dict[str, str | None], where: str) -> Entry:
    path = posixpath.normpath(row["path"] or "")
    label = (row["label"] or "").strip()
    split = (row.get("split") or "").strip()
    if path == ".":
        raise UserError(f"{where}: the path is empty; write one, or remove the line")
    if path.startswith(("/", "../")):
        raise UserError(
            f"{where}: {row['path']!r} is not below the manifest's folder; write paths relative to "
            "it (a link to a file elsewhere is allowed)"
        )
    if split and split.lower() not in SPLIT_NAMES:
        raise UserError(
            f"{where}: no split {split!r}; write train, validation or test, or leave it empty"
        )
    metadata = {
        name: _number(value.strip())
        for name, value in row.items()
        if name and name not in ("path", "label", "split") and value and value.strip()
    }
    return Entry(path, label, SPLIT_NAMES.get(split.lower(), ""), metadata)


def _number(text: str) -> str | float:
    """The number if the text is a finite number, otherwise the text."""
    for kind in (int, float):
        try:
            number = kind(text)
        except ValueError:
            continue
        return number if math.isfinite(number) else text
    return text


def _check_listed(manifest: Path, entries: list[Entry]) -> None:
    seen = set()
    for each in entries:
        if each.path in seen:
            raise UserError(f"{manifest}: {each.path!r} is listed twice; keep one of the lines")
        seen.add(each.path)
    # os.path, as pathlib raises an error if a name is too long for the file system.
    missing = [each.path for each in entries if not os.path.isfile(manifest.parent / each.path)]
    if missing:
        raise UserError(
            f"{manifest}: {len(missing)} of {len(entries)} files were not found, "
            f"the first {missing[0]!r}; write paths relative to {manifest.parent}"
        )
