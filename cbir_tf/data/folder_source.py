"""Images from a folder of class sub-folders, or from a manifest."""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from cbir_tf.config.data import Data
from cbir_tf.data.csv_table import NotATableError
from cbir_tf.data.entries import SPLIT_NAMES, Entry, image_set
from cbir_tf.data.manifest_source import read_manifest
from cbir_tf.data.text import nfc
from cbir_tf.errors import LISTED, UserError
from cbir_tf.storage.remote import local
from cbir_tf.types import ImageSet

log = logging.getLogger(__name__)

IMAGE_SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif"})
TABLE_SUFFIXES = frozenset({".csv", ".tsv", ".tab", ".txt", ".xlsx", ".xls", ".ods"})
_SPLIT_LIKE = re.compile(
    r"(train|training|val|valid|validation|test|testing)([ _-]?(set|data|images|split|[0-9]+))?",
    re.I,
)
CLASS_LAYOUT = "expected class sub-folders with images, or a manifest.csv with path,label"


def folder(data: Data) -> ImageSet:
    """Images of a folder, in one of four layouts.

    - `manifest.csv` (in the folder, or the path itself, which may have another name): a line for
      each image, with its path and perhaps label, split and metadata
      (`cbir_tf.data.manifest_source.read_manifest`); an empty label means unlabelled.
    - split folders with class folders, `train/cat/1.jpg`, if all top-level folders are named
      train, validation (val, valid) or test.
    - class folders, `cat/1.jpg`; with `data.label_depth: 2`, `animal/cat/1.jpg` is of the class
      animal/cat.
    - no class folder that contains an image, `1.jpg` or `train/1.jpg`: all images are unlabelled.

    An id is the path below the root, with forward slashes, in NFC. Files without a known image
    suffix are left out and counted in the log; hidden files and folders are ignored.

    Raises:
        UserError: the folder or manifest is missing, empty or malformed, or split folders and
            others lie side by side.
    """
    assert data.path is not None  # checked by the configuration
    root = data.path.expanduser()
    if root.suffix.lower() in TABLE_SUFFIXES and not root.is_dir():
        local(root.parent)
        return image_set(root.parent, read_manifest(root, data.max_missing))
    local(root)
    check_folder(root, "check data.path")
    manifest = root / "manifest.csv"
    if manifest.is_file():
        if data.label_depth:
            log.warning("%s gives the labels; data.label_depth is not used", manifest)
        try:
            return image_set(root, read_manifest(manifest, data.max_missing))
        except NotATableError as error:
            raise UserError(f"{error}; if it is no list of images, give it another name") from None
    return image_set(root, _walk_classes(root, data.label_depth))


def images_in_folder(path: Path) -> ImageSet:
    """Every image below a folder, at any depth, unlabelled; or the images of its manifest.csv.

    Args:
        path: the folder, or a manifest.

    Raises:
        UserError: the folder was not found, or contains no image.
    """
    if path.suffix.lower() in TABLE_SUFFIXES and not path.is_dir():
        root = local(path.parent).expanduser()
        return image_set(root, read_manifest(root / path.name))
    root = local(path).expanduser()
    check_folder(root, "check --images")
    if (root / "manifest.csv").is_file():
        try:
            return image_set(root, read_manifest(root / "manifest.csv"))
        except NotATableError as error:  # there are other things of that name
            log.warning("%s; the images of the folder are taken without it", error)
    paths = _image_paths(root, any_name=True)
    if not paths:
        raise UserError(f"{root}: no images found; known suffixes are {_suffixes()}")
    return image_set(root, [Entry(each, "", "") for each in paths])


def _suffixes() -> str:
    return " ".join(sorted(IMAGE_SUFFIXES))


def check_folder(root: Path, advice: str) -> None:
    """Raise a UserError unless there is such a folder."""
    try:
        there = root.exists()
    except OSError as error:  # a folder above it cannot be read
        raise UserError(f"{root}: cannot be read: {error.strerror}; {advice}") from None
    if not there:
        raise UserError(f"{root}: no such folder; {advice}")
    if not root.is_dir():
        raise UserError(f"{root}: is a file, not a folder; {advice}")


# --- class folders ------------------------------------------------------------------------------


def _walk_classes(root: Path, label_depth: int | None) -> list[Entry]:
    paths = _image_paths(root)
    if not (paths or _class_folders(root)):
        raise UserError(f"{root}: no images and no sub-folders; {CLASS_LAYOUT}")
    if not paths:
        raise UserError(
            f"{root}: no images found in class sub-folders; known suffixes are {_suffixes()}"
        )
    folders_of = {path: path.split("/")[:-1] for path in paths}
    split_of = dict.fromkeys(paths, "")
    if _is_by_split(root, list(folders_of.values()), label_depth):
        for path, folders in folders_of.items():
            split_of[path] = SPLIT_NAMES[folders.pop(0).lower()] if folders else ""
    depth = label_depth or 1
    inside = [path for path in paths if len(folders_of[path]) >= depth]
    if label_depth and not inside:
        raise UserError(
            f"data.label_depth: {root} has no image in {depth} levels of class folders, the first "
            f"is {paths[0]}; lower it"
        )
    if not label_depth:
        _report_levels(root, [folders_of[path] for path in inside])
    strays = len(paths) - len(inside) if inside else 0
    if strays:
        first = next(path for path in paths if len(folders_of[path]) < depth)
        log.warning(
            "%s: %d images outside class folders left out, the first %s", root, strays, first
        )
    return [
        Entry(path, nfc("/".join(folders_of[path][:depth])), split_of[path])
        for path in inside or paths
    ]


def _is_by_split(root: Path, folders_of: Sequence[list[str]], label_depth: int | None) -> bool:
    """Whether the folders at the top are splits.

    Raises:
        UserError: some of them seem to be, and others not.
    """
    tops = sorted({folders[0] for folders in folders_of if folders})
    if all(each.lower() in SPLIT_NAMES for each in tops):
        return True
    if label_depth:  # the user has looked at them
        return False
    splits = [each for each in tops if _SPLIT_LIKE.fullmatch(each)]
    kinds = {each.lower()[:3] for each in splits}
    # A class may be called train, of pictures of trains; it has them in it.
    with_pictures = {folders[0] for folders in folders_of if len(folders) == 1}
    if splits and not (kinds == {"tra"} and with_pictures.issuperset(splits)):
        others = sorted(set(tops) - set(splits))
        beside = f", and beside them is {_some(others)}" if others else ""
        raise UserError(
            f"{root}: the folders {_some(splits)} are named like splits{beside}; name them "
            "train, validation and test and move anything else away, or set data.label_depth=1 if "
            "all of them are classes"
        )
    return False


def _report_levels(root: Path, folders_of: Sequence[list[str]]) -> None:
    """Say which folders are the classes where there are more below them."""
    classes = sorted({folders[0] for folders in folders_of})
    below = {tuple(folders[:2]) for folders in folders_of if len(folders) > 1}
    if below:
        log.warning(
            "%s: %d classes, the first level of folders: %s; below are %d folders of images: with "
            "data.label_depth=2 each of them is a class",
            root,
            len(classes),
            _some(classes),
            len(below),
        )


def _some(names: Sequence[str]) -> str:
    more = [f"... ({len(names)} in all)"] if len(names) > LISTED else []
    return ", ".join([*names[:LISTED], *more])


def _class_folders(root: Path) -> list[str]:
    return sorted(
        each.name for each in root.iterdir() if each.is_dir() and not each.name.startswith(".")
    )


def _image_paths(root: Path, any_name: bool = False) -> list[str]:
    """Paths of the image files below a folder, relative to it, sorted.

    Args:
        root: the folder.
        any_name: also of files whose names are not Unicode; their bytes are surrogates.
    """
    paths, others, unnameable = [], 0, list[str]()
    for path in files_below(root):
        if Path(path).suffix.lower() not in IMAGE_SUFFIXES:
            others += 1
        elif not (any_name or is_unicode(path)):
            unnameable.append(path)
        else:
            paths.append(path)
    if others:
        log.info("%s: %d files without an image suffix left out", root, others)
    if unnameable:
        log.warning(
            "%s: %d images left out, their names are not Unicode, the first %r; rename them",
            root,
            len(unnameable),
            min(unnameable),
        )
    return sorted(paths)


def files_below(root: Path) -> Iterator[str]:
    """Paths of the files below a folder, relative to it, without hidden ones; follows links.

    Folders below it that cannot be read are named in the log.

    Raises:
        UserError: the folder itself cannot be read.
    """

    def report(error: OSError) -> None:
        reason = (error.strerror or str(error)).lower()
        if error.filename == str(root):
            raise UserError(f"{root}: cannot be read: {reason}; check its permissions")
        log.warning("%s: cannot be read, left out: %s", error.filename, reason)

    seen = set()
    for folder_name, inner, files in os.walk(root, onerror=report, followlinks=True):
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
