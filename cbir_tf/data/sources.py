"""Where images come from: a name in the configuration, a function here."""

from __future__ import annotations

import io
import logging
from collections.abc import Callable

import numpy as np
from PIL import Image

from cbir_tf.config.data import Data
from cbir_tf.data.coco_source import coco
from cbir_tf.data.folder_source import CLASS_LAYOUT, folder, images_in_folder
from cbir_tf.data.grouped_split import DUPLICATES, groups_of_column
from cbir_tf.data.splits import apply_split
from cbir_tf.data.tfds_source import tensorflow_dataset
from cbir_tf.errors import LISTED, UserError
from cbir_tf.types import UNLABELLED, ImageSet

__all__ = ["LICENCES", "SOURCES", "all_images", "digits", "images_in_folder", "load_images"]

log = logging.getLogger(__name__)


def digits(data: Data) -> ImageSet:
    """scikit-learn's 1,797 handwritten digits of 8 x 8 pixels, as PNG files in memory, no split."""
    from sklearn.datasets import load_digits  # slow, and needed here alone

    bunch = load_digits()
    pixels = np.rint(bunch.images * (255 / 16)).astype(np.uint8)
    return ImageSet(
        ids=np.array([f"digits/{number:04d}" for number in range(len(pixels))]),
        sources=tuple(_png(each) for each in pixels),
        labels=bunch.target,
        split=np.full(len(pixels), ""),
        class_names=tuple(str(each) for each in bunch.target_names),
    )


def _png(pixels: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, format="PNG")
    return buffer.getvalue()


def no_images(data: Data) -> ImageSet:
    """No images: a run that searches other folders only.

    Raises:
        UserError: always, as the caller wants images.
    """
    raise UserError(
        "data.source: none: the run has no images of its own; extract a folder with --images DIR"
    )


SOURCES: dict[str, Callable[[Data], ImageSet]] = {
    "digits": digits,
    "folder": folder,
    "tfds": tensorflow_dataset,
    "coco": coco,
    "none": no_images,
}


LICENCES = {
    "digits": "CC BY 4.0; E. Alpaydin and C. Kaynak, Optical Recognition of Handwritten Digits, "
    "UCI Machine Learning Repository, 1998, https://doi.org/10.24432/C50P49"
}
"""Of the images of a source, with those to credit, where all of them have one."""


def all_images(data: Data) -> ImageSet:
    """The images of the source as they are now, in no split but the source's own.

    Raises:
        UserError: the source is missing, empty or malformed.
    """
    return SOURCES[data.source](data)


def load_images(data: Data, seed: int, by_label: bool = True) -> ImageSet:
    """The images that the configuration names, each assigned to its split.

    With `data.split.group: duplicates` they are not yet: the pictures are to be compared first
    (`cbir_tf.training.run_files.inspect_for`).

    Args:
        data: source, path and split.
        seed: for the split; the same seed gives the same split.
        by_label: whether training goes by labels; otherwise images need none, and unlabelled ones
            are split too.

    Raises:
        UserError: the source is missing, empty or malformed, has fewer than two classes though
            they are needed, or cannot be split as asked.
    """
    images = all_images(data)
    if by_label:
        _check_classes(images, data)
    column = data.split.group
    if column == DUPLICATES:
        return images
    groups = None if column is None else groups_of_column(images, column)
    return apply_split(images, data.split, seed, by_label, groups)


def _check_classes(images: ImageSet, data: Data) -> None:
    """Raise a UserError unless there are two classes; warn of those with a single image."""
    where = data.dataset if data.source == "tfds" else data.path or data.source
    counts = np.bincount(images.labels[images.labels != UNLABELLED], minlength=1)
    present = np.flatnonzero(counts)
    if not len(present):
        layout = f"; {CLASS_LAYOUT}" if data.source == "folder" else ""
        raise UserError(f"{where}: none of the {len(images)} images has a label{layout}")
    if len(present) == 1:
        raise UserError(
            f"{where}: needs at least two classes, there is only "
            f"{images.class_names[present[0]]!r}; is it the right folder?"
        )
    single = [images.class_names[each] for each in np.flatnonzero(counts == 1)]
    if single:
        shown = [*single[:LISTED], *(["..."] if len(single) > LISTED else [])]
        log.warning(
            "%s: %d classes have a single image, without another to learn from or to find: %s; "
            "give them a second one",
            where,
            len(single),
            ", ".join(map(repr, shown)),
        )
