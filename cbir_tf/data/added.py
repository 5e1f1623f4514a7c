"""Images that were added to a run by the service, as files in the run's folder.

    added/3f2a....jpg     the image, unchanged
    added/3f2a....json    its label and metadata; without this file the image does not count

The id of an added image is a digest of its content, so that adding an image twice changes nothing.
`cbir extract` includes these files when it makes the feature store.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from cbir_tf.data.decode import media_type
from cbir_tf.storage.files import read_json, replacing, sha256
from cbir_tf.text import nfc
from cbir_tf.types import UNLABELLED, ImageSet

DIGITS = 32  # of the SHA-256, in hexadecimal
_SUFFIX = ".json"


def id_of(picture: bytes) -> str:
    """The id of an added image."""
    return f"added/{sha256(picture)[:DIGITS]}"


def save_picture(
    folder: Path, picture: bytes, label: str | None, metadata: Mapping[str, str | float]
) -> Path:
    """Write an image, its label and its metadata; all are on disk when the function returns.

    Args:
        folder: `Run.added`.
        picture: encoded image, in a format of `media_type`.
        label: name of its class; None: unlabelled.
        metadata: further columns, text or numbers by name.

    Returns:
        Path of the image.

    Raises:
        UserError: the files cannot be written.
    """
    kind = (media_type(picture[:16]) or "image/bin").removeprefix("image/")
    path = folder / f"{sha256(picture)[:DIGITS]}.{kind}"
    with replacing(path) as temporary:
        temporary.write_bytes(picture)
    about = {"picture": path.name, "label": label, "metadata": dict(metadata)}
    with replacing(path.with_suffix(_SUFFIX)) as temporary:
        temporary.write_text(json.dumps(about, ensure_ascii=False), encoding="utf-8")
    _synchronize(folder)
    return path


def forget_picture(path: Path) -> None:
    """Remove the label and metadata of an image, so that it no longer counts as added."""
    path.with_suffix(_SUFFIX).unlink(missing_ok=True)
    _synchronize(path.parent)


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
