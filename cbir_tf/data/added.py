"""Images that were added to a run by the service, as files in the run's folder.

    added/3f2a....jpg     the image, unchanged
    added/3f2a....json    its label and metadata; without this file the image does not count

The id of an added image is a digest of its content, so that adding an image twice changes nothing.
`cbir extract` includes these files when it makes the feature store.

A change is of these files and of the feature store, and happens in both or in neither: it begins
with a third file, .3f2a....before.json, which has the label and metadata of before, or nothing for
a new image. Then come the other files, then the store, in one transaction, and at last the third
file goes. If a step fails the files are put back; after a kill the next start does it
(`finish_changes`), by what the store has.
"""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from cbir_tf.data.decode import media_type
from cbir_tf.data.text import nfc
from cbir_tf.errors import UserError
from cbir_tf.progress import logger
from cbir_tf.storage.files import cannot_write, read_json, replacing, sha256
from cbir_tf.types import UNLABELLED, ImageSet

DIGITS = 32  # of the SHA-256, in hexadecimal
_SUFFIX = ".json"
_BEFORE = ".before.json"
_PICTURE = re.compile(rf"([0-9a-f]{{{DIGITS}}})\.(?!json$)\w+")
_UNFINISHED = re.compile(rf"\.{{1,2}}[0-9a-f]{{{DIGITS}}}(\.before)?\.[0-9a-f]{{8}}\.\w+")
"""Files that `replacing` was writing when the process was killed."""

About = tuple[str | None, Mapping[str, str | float]]
"""Label and metadata of an image."""


def id_of(picture: bytes) -> str:
    """The id of an added image."""
    return f"added/{sha256(picture)[:DIGITS]}"


@contextmanager
def adding(
    folder: Path, picture: bytes, label: str | None, metadata: Mapping[str, str | float]
) -> Iterator[Path]:
    """Write an image, its label and its metadata; within, the feature store is changed alike.

    All are on disk within; if the block fails, the files are as they were before.

    Args:
        folder: `Run.added`.
        picture: encoded image, in a format of `media_type`.
        label: name of its class; None: unlabelled.
        metadata: further columns, text or numbers by name.

    Yields:
        Path of the image.

    Raises:
        UserError: the files cannot be written.
    """
    kind = (media_type(picture[:16]) or "image/bin").removeprefix("image/")
    digest = sha256(picture)
    path = folder / f"{digest[:DIGITS]}.{kind}"
    with _changing(path):
        with replacing(_before(path)) as temporary:
            if _about(path).is_file():
                shutil.copyfile(_about(path), temporary)
            else:
                temporary.touch()
        if not path.is_file() or sha256(path) != digest:
            with replacing(path) as temporary:
                temporary.write_bytes(picture)
        _describe(path, (label, metadata))
        _synchronize(folder)
        yield path
    with _finishing(path):
        _before(path).unlink()
        _synchronize(folder)


@contextmanager
def removing(path: Path) -> Iterator[None]:
    """Remove an image with its label and metadata; within, it is removed from the feature store.

    The picture itself goes after the block; if the block fails, the files are as they were before.

    Args:
        path: of an image that was added.

    Raises:
        UserError: the files cannot be changed.
    """
    with _changing(path):
        if _about(path).is_file():
            os.replace(_about(path), _before(path))
            _synchronize(path.parent)
        yield
    with _finishing(path):
        path.unlink(missing_ok=True)
        _before(path).unlink(missing_ok=True)
        _synchronize(path.parent)


def finish_changes(
    folder: Path, stored: Callable[[str], About | None], id_: str | None = None
) -> None:
    """Finish or undo the changes that a kill has interrupted, and remove what they have left.

    Args:
        folder: `Run.added`; no one else may be changing it.
        stored: label and metadata in the feature store by id; None: no such image.
        id_: of the image whose change is looked at; None: all changes, and what else is left.
    """
    try:
        if id_ is None:
            begun = sorted(folder.glob(f".*{_BEFORE}"))
        else:
            begun = [folder / f".{id_.rpartition('/')[2]}{_BEFORE}"]
        for before in begun:
            if before.exists():
                _finish(folder, before, stored(f"added/{before.name[1 : -len(_BEFORE)]}"))
        for path in sorted(folder.iterdir()) if id_ is None and folder.is_dir() else ():
            _sweep(path, stored)
    except (OSError, UserError) as error:
        logger.warning("%s: what interrupted changes have left stays (%s)", folder, error)


def _sweep(path: Path, stored: Callable[[str], About | None]) -> None:
    """Remove a file that counts as nothing; a stored picture gets its label and metadata again."""
    match = _PICTURE.fullmatch(path.name)
    if _UNFINISHED.fullmatch(path.name):
        path.unlink()
    elif match and not _about(path).exists() and sha256(path).startswith(match[1]):
        about = stored(f"added/{path.stem}")
        if about is not None:
            _describe(path, about)
        else:
            logger.warning("%s: left by an interrupted change; removed", path)
            path.unlink()


def _finish(folder: Path, before: Path, stored: About | None) -> None:
    """Decide one change by what the store has."""
    digest = before.name[1 : -len(_BEFORE)]
    about, was_there = folder / f"{digest}{_SUFFIX}", before.stat().st_size > 0
    if stored is None:
        if not (was_there and about.exists()):  # neither added, nor still there after a removal
            for each in folder.glob(f"{digest}.*"):
                each.unlink()
    elif was_there and (not about.exists() or not _is_about(about, stored)):
        os.replace(before, about)
    before.unlink(missing_ok=True)


def _is_about(file: Path, about: About) -> bool:
    try:
        values = read_json(file)
    except UserError:  # damaged
        return False
    return (values.get("label"), values.get("metadata")) == (about[0], dict(about[1]))


def added_images(folder: Path) -> ImageSet:
    """The images that were added and not removed since, without splits."""
    abouts = [read_json(each) for each in sorted(folder.glob(f"[!.]*{_SUFFIX}"))]
    paths = [folder / Path(each["picture"]).name for each in abouts]
    labels = [nfc(each["label"] or "") for each in abouts]
    names = sorted({*labels} - {""})
    return ImageSet(
        ids=np.array([f"added/{each.stem}" for each in paths], dtype=np.str_),
        sources=tuple(paths),
        labels=np.array(
            [names.index(each) if each else UNLABELLED for each in labels],
            dtype=np.int64,
        ),
        split=np.full(len(paths), ""),
        class_names=tuple(names),
        metadata=tuple(each["metadata"] for each in abouts),
    )


def with_added(images: ImageSet, folder: Path) -> ImageSet:
    """The images of a source together with the images that were added and not removed since.

    Args:
        images: images of the source; files in the folder of added images are left out here, as they
            have the ids of added images or were removed.
        folder: `Run.added`.
    """
    if not folder.is_dir():
        return images
    home = folder.resolve()
    parents = {each.parent for each in images.sources if isinstance(each, Path)}
    ours = {each for each in parents if each.resolve().is_relative_to(home)}
    elsewhere = [not (isinstance(each, Path) and each.parent in ours) for each in images.sources]
    images, added = images.take(np.array(elsewhere, dtype=bool)), added_images(folder)
    names = [
        *images.class_names,
        *(each for each in added.class_names if each not in images.class_names),
    ]
    numbers = np.array([*map(names.index, added.class_names), UNLABELLED])
    return ImageSet(
        ids=np.concatenate([images.ids, added.ids]),
        sources=(*images.sources, *added.sources),
        labels=np.concatenate([images.labels, numbers[added.labels]]),
        split=np.concatenate([images.split, added.split]),
        class_names=tuple(names),
        metadata=(*images.metadata, *added.metadata),
    )


def _about(path: Path) -> Path:
    return path.with_suffix(_SUFFIX)


def _before(path: Path) -> Path:
    return path.with_name(f".{path.stem}{_BEFORE}")


def _describe(path: Path, about: About) -> None:
    label, metadata = about
    values = {"picture": path.name, "label": label, "metadata": dict(metadata)}
    with replacing(_about(path)) as temporary:
        temporary.write_text(json.dumps(values, ensure_ascii=False), encoding="utf-8")


@contextmanager
def _changing(path: Path) -> Iterator[None]:
    """Put the files of an image back if the block fails.

    Raises:
        UserError: in place of an OSError.
    """
    try:
        yield
    except BaseException as error:
        try:
            _undo(path)
        except OSError as failed:
            logger.warning("%s: the next start puts it back (%s)", path, failed)
        if isinstance(error, OSError):
            raise cannot_write(path, error) from error
        raise


@contextmanager
def _finishing(path: Path) -> Iterator[None]:
    """Nothing that fails here undoes the change; the next start removes what is left."""
    try:
        yield
    except OSError as error:
        logger.warning("%s: the next start removes what is left of a change (%s)", path, error)


def _undo(path: Path) -> None:
    """The files as they were before a change, by the file that it began with."""
    before = _before(path)
    if not before.exists():
        return
    if before.stat().st_size:
        os.replace(before, _about(path))
    else:
        _about(path).unlink(missing_ok=True)
        path.unlink(missing_ok=True)
        before.unlink()
    _synchronize(path.parent)


def _synchronize(folder: Path) -> None:
    """Write the folder's directory entries to disk."""
    try:
        descriptor = os.open(folder, os.O_RDONLY)
    except PermissionError:  # Windows opens no folders
        return
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
