"""Sheets of images: samples, augmentations, reconstructions, queries with their neighbours."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from cbir_tf.plots.sheet import Cell, Pixels, sheet
from cbir_tf.plots.style import save

_NEIGHBOURS_A_LINE = 10
_CELLS_A_LINE = 10


@dataclass(frozen=True)
class NeighbourRow:
    """A query and its neighbours, the nearest first.

    Attributes:
        query_image: uint8 pixels, or None.
        query_caption: up to three lines: file name, class.
        neighbour_images: k images.
        captions: k captions, up to three lines each: class, distance.
        correct: k times whether the neighbour is of the query's class; None where not known.
    """

    query_image: Pixels
    query_caption: str
    neighbour_images: Sequence[Pixels]
    captions: Sequence[str]
    correct: Sequence[bool | None]

    def __post_init__(self) -> None:
        if not len(self.neighbour_images) == len(self.captions) == len(self.correct):
            raise ValueError("neighbour_images, captions and correct differ in length")


@dataclass(frozen=True)
class Member:
    """One image of a group.

    Attributes:
        image: uint8 pixels, or None.
        heading: a word or two above it.
        caption: up to three lines below it.
    """

    image: Pixels
    heading: str
    caption: str


def image_grid(
    path: Path, images: Sequence[Pixels], captions: Sequence[str], columns: int = 6, title: str = ""
) -> Path:
    """Write images in reading order, each with its caption of up to three lines.

    Args:
        path: where to write.
        images: uint8 pixels, gray, RGB or RGBA, each of any size.
        captions: one an image; lines too wide are cut in the middle.
        columns: images a row.
        title: above the sheet.

    Raises:
        UserError: the file cannot be written.
    """
    return save(_image_figure(images, captions, columns, title), path)


def sample_grid(
    path: Path, images: Sequence[Pixels], labels: Sequence[str], title: str = "Samples"
) -> Path:
    """Write some images of a set in a nearly square sheet, captioned with their classes.

    Raises:
        UserError: the file cannot be written.
    """
    columns = int(np.clip(np.ceil(np.sqrt(len(images))), 1, 10))
    return image_grid(path, images, labels, columns, title)


def augmentation_grid(
    path: Path,
    originals: Sequence[Pixels],
    augmented: Sequence[Sequence[Pixels]],
    title: str = "Augmentation",
) -> Path:
    """Write a row for each original, with its augmented variants beside it.

    Args:
        path: where to write.
        originals: images.
        augmented: for each original, its variants.
        title: above the sheet.

    Raises:
        UserError: the file cannot be written.
    """
    rows = []
    for number, (original, variants) in enumerate(zip(originals, augmented, strict=True)):
        headings = ["original", *(f"variant {each + 1}" for each in range(len(variants)))]
        images = [original, *variants]
        rows.append(
            [
                Cell(image, heading="" if number else heading, query=image is original)
                for image, heading in zip(images, headings, strict=True)
            ]
        )
    return save(sheet(rows, title), path)


def reconstruction_grid(
    path: Path,
    rows: Mapping[str, Sequence[Pixels]],
    errors: Sequence[float],
    title: str = "Reconstructions",
) -> Path:
    """Write a column for each image: the original above its reconstruction.

    Args:
        path: where to write.
        rows: heading of each row -> N images; from top to bottom.
        errors: of the last row, N numbers, written below each.
        title: above the sheet.

    Raises:
        UserError: the file cannot be written.
    """
    cells = [
        [Cell(image, heading="" if column else heading) for column, image in enumerate(images)]
        for heading, images in rows.items()
    ]
    cells[-1] = [
        replace(cell, caption=f"{error:.4f}") for cell, error in zip(cells[-1], errors, strict=True)
    ]
    return save(sheet(cells, title), path)


def neighbour_grid(
    path: Path,
    query_image: Pixels,
    query_caption: str,
    neighbour_images: Sequence[Pixels],
    captions: Sequence[str],
    correct: Sequence[bool | None],
    title: str = "Nearest neighbours",
) -> Path:
    """Write a query and its neighbours by rank, framed green with a tick where of the query's
    class, red with a cross where not, and plain where that is not known.

    Args:
        path: where to write.
        query_image: as in `NeighbourRow`.
        query_caption: likewise.
        neighbour_images: likewise.
        captions: likewise.
        correct: likewise.
        title: above the sheet.

    Raises:
        UserError: the file cannot be written.
    """
    row = NeighbourRow(query_image, query_caption, neighbour_images, captions, correct)
    return query_grid(path, [row], title)


def query_grid(
    path: Path, rows: Sequence[NeighbourRow], title: str = "Queries and their nearest neighbours"
) -> Path:
    """Write several queries, a row each, in the manner of `neighbour_grid`.

    Raises:
        UserError: the file cannot be written.
    """
    return save(_query_figure(rows, title), path)


def group_grid(path: Path, groups: Sequence[Sequence[Member]], title: str) -> Path:
    """Write groups of images, the first of each marked, small ones beside one another.

    Args:
        path: where to write.
        groups: each of at least one image.
        title: above the sheet.

    Raises:
        UserError: the file cannot be written.
    """
    return save(_group_figure(groups, title), path)


def _image_figure(
    images: Sequence[Pixels], captions: Sequence[str], columns: int, title: str
) -> Figure:
    if columns < 1:
        raise ValueError(f"columns must be at least 1, got {columns}")
    cells = [Cell(image, caption) for image, caption in zip(images, captions, strict=True)]
    rows = [cells[start : start + columns] for start in range(0, len(cells), columns)]
    return sheet(rows, title)


def _query_figure(rows: Sequence[NeighbourRow], title: str) -> Figure:
    cells: list[list[Cell | None]] = []
    for row in rows:
        found = [
            Cell(image, caption, f"{rank}", correct)
            for rank, (image, caption, correct) in enumerate(
                zip(row.neighbour_images, row.captions, row.correct, strict=True), 1
            )
        ]
        query = Cell(row.query_image, row.query_caption, "query", query=True)
        cells.append([query, *found[:_NEIGHBOURS_A_LINE]])
        for start in range(_NEIGHBOURS_A_LINE, len(found), _NEIGHBOURS_A_LINE):
            cells.append([None, *found[start : start + _NEIGHBOURS_A_LINE]])
    return sheet(cells, title)


def _group_figure(groups: Sequence[Sequence[Member]], title: str) -> Figure:
    rows: list[list[Cell]] = []
    for group in groups:
        cells = [
            Cell(each.image, each.caption, each.heading, query=each is group[0]) for each in group
        ]
        if rows and len(rows[-1]) + len(cells) <= _CELLS_A_LINE:
            rows[-1] += cells
        else:
            rows.append(cells)
    return sheet(rows, title)
