"""A sheet of duplicate groups; the image to keep comes first in each."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from cbir_tf.data.decode import ImageError, decode_original
from cbir_tf.data.duplicate_images import DuplicateImage
from cbir_tf.plots.grids import Member, group_grid
from cbir_tf.plots.style import clean
from cbir_tf.types import ImageSet

GROUPS = 20
"""Largest number of groups drawn, the largest groups."""
IMAGES = 10
"""Largest number of images drawn of each group."""
_SIDE = 224  # pixels


def duplicate_grid(
    path: Path, groups: Sequence[Sequence[DuplicateImage]], images: ImageSet
) -> Path:
    """Write the first 20 groups, up to 10 images of each, with kind, name, folder and size.

    Args:
        path: where to write.
        groups: of duplicates, the largest first.
        images: which contain those of the groups.

    Raises:
        UserError: the path cannot be written to.
    """
    sources = dict(zip(images.ids.tolist(), images.sources, strict=True))
    rows = [
        [
            Member(_pixels(sources[each.id]), _heading(each, len(group)), _caption(each))
            for each in group[:IMAGES]
        ]
        for group in groups[:GROUPS]
    ]
    shown = f"{GROUPS} largest of " if len(groups) > GROUPS else ""
    plural = "s" * (len(groups) != 1)
    return group_grid(path, rows, f"{shown}{len(groups)} group{plural} of duplicates")


def _pixels(source: Path | bytes) -> np.ndarray | None:
    try:
        return decode_original(source, _SIDE)
    except ImageError:  # the file was deleted meanwhile
        return None


def _heading(image: DuplicateImage, group_size: int) -> str:
    if image.kind == "keep" and group_size > IMAGES:
        return f"keep; {IMAGES} of {group_size}"
    if image.kind == "near":
        return f"near, {image.bits} bits"
    if image.kind == "similar":
        return f"similar, {image.distance:.4f}"
    return image.kind


def _caption(image: DuplicateImage) -> str:
    """Caption: name, folder, size."""
    place = Path(image.id)
    size = f"{image.width} x {image.height}, {image.bytes / 1e3:.0f} kB"
    folder = "" if place.parent == Path() else str(place.parent)
    return "\n".join([clean(place.name), clean(folder), size])
