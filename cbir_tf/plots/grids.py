"""Sheets of images: samples, augmentations, queries with what was found for them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from cbir_tf.plots.pictures import as_picture, within
from cbir_tf.plots.style import (
    FAINT,
    INK,
    MUTED,
    RIGHT,
    SMALL_SIZE,
    TITLE_SIZE,
    WRONG,
    bare,
    fitted,
    look,
    new_figure,
    note,
    save,
)

# Inches.
_SIDE = 1.45
_GAP = 0.2
_QUERY_GAP = 0.35
_GROUP_GAP = 0.6
_MARGIN = 0.3
_LINE = 0.165
_HEADING = 0.22
_TITLE = 0.36
_KEY = 0.24
_LEAST_WIDTH = 4.5

_FRAME = 3.0  # points
_PIXELS = 480  # longest side of an image as drawn; more is not to be seen
_NEIGHBOURS_A_LINE = 10
_CELLS_A_LINE = 10
_CAPTION_LINES = 3

Pixels = np.ndarray | None
"""uint8 pixels, gray, RGB or RGBA, of any size; None where there is no image to show."""


@dataclass(frozen=True)
class NeighbourRow:
    """A query and what was found for it, nearest first.

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


@dataclass(frozen=True)
class _Cell:
    image: Pixels
    caption: str = ""
    heading: str = ""
    correct: bool | None = None
    query: bool = False

    @property
    def lines(self) -> list[str]:
        return self.caption.splitlines()[:_CAPTION_LINES]


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
        UserError: the place cannot be written to.
    """
    return save(_image_figure(images, captions, columns, title), path)


def sample_grid(
    path: Path, images: Sequence[Pixels], labels: Sequence[str], title: str = "Samples"
) -> Path:
    """Write some images of a set in a sheet about as wide as high, captioned by class name.

    Raises:
        UserError: the place cannot be written to.
    """
    columns = int(np.clip(np.ceil(np.sqrt(len(images))), 1, 10))
    return image_grid(path, images, labels, columns, title)


def augmentation_grid(
    path: Path,
    originals: Sequence[Pixels],
    augmented: Sequence[Sequence[Pixels]],
    title: str = "Augmentation",
) -> Path:
    """Write a row for each original, beside it the variants training would see.

    Args:
        path: where to write.
        originals: images.
        augmented: for each original, its variants.
        title: above the sheet.

    Raises:
        UserError: the place cannot be written to.
    """
    rows = []
    for number, (original, variants) in enumerate(zip(originals, augmented, strict=True)):
        headings = ["original", *(f"variant {each + 1}" for each in range(len(variants)))]
        images = [original, *variants]
        rows.append(
            [
                _Cell(image, heading="" if number else heading, query=image is original)
                for image, heading in zip(images, headings, strict=True)
            ]
        )
    return save(_sheet(rows, title), path)


def reconstruction_grid(
    path: Path,
    rows: Mapping[str, Sequence[Pixels]],
    errors: Sequence[float],
    title: str = "Reconstructions",
) -> Path:
    """Write an image in each column: what it is, what was made of it below.

    Args:
        path: where to write.
        rows: heading of each row -> N images; from top to bottom.
        errors: of the last row, N numbers, written below each.
        title: above the sheet.

    Raises:
        UserError: the place cannot be written to.
    """
    cells = [
        [_Cell(image, heading="" if column else heading) for column, image in enumerate(images)]
        for heading, images in rows.items()
    ]
    cells[-1] = [
        replace(cell, caption=f"{error:.4f}") for cell, error in zip(cells[-1], errors, strict=True)
    ]
    return save(_sheet(cells, title), path)


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
        query_image, query_caption, neighbour_images, captions, correct: see `NeighbourRow`.
        title: above the sheet.

    Raises:
        UserError: the place cannot be written to.
    """
    row = NeighbourRow(query_image, query_caption, neighbour_images, captions, correct)
    return query_grid(path, [row], title)


def query_grid(
    path: Path, rows: Sequence[NeighbourRow], title: str = "Queries and their nearest neighbours"
) -> Path:
    """Write several queries, a row each, in the manner of `neighbour_grid`.

    Raises:
        UserError: the place cannot be written to.
    """
    return save(_query_figure(rows, title), path)


def group_grid(path: Path, groups: Sequence[Sequence[Member]], title: str) -> Path:
    """Write groups of images, the first of each marked, small ones beside one another.

    Args:
        path: where to write.
        groups: each of at least one image.
        title: above the sheet.

    Raises:
        UserError: the place cannot be written to.
    """
    return save(_group_figure(groups, title), path)


def _image_figure(
    images: Sequence[Pixels], captions: Sequence[str], columns: int, title: str
) -> Figure:
    if columns < 1:
        raise ValueError(f"columns must be at least 1, got {columns}")
    cells = [_Cell(image, caption) for image, caption in zip(images, captions, strict=True)]
    rows = [cells[start : start + columns] for start in range(0, len(cells), columns)]
    return _sheet(rows, title)


def _query_figure(rows: Sequence[NeighbourRow], title: str) -> Figure:
    cells: list[list[_Cell | None]] = []
    for row in rows:
        found = [
            _Cell(image, caption, f"{rank}", correct)
            for rank, (image, caption, correct) in enumerate(
                zip(row.neighbour_images, row.captions, row.correct, strict=True), 1
            )
        ]
        query = _Cell(row.query_image, row.query_caption, "query", query=True)
        cells.append([query, *found[:_NEIGHBOURS_A_LINE]])
        for start in range(_NEIGHBOURS_A_LINE, len(found), _NEIGHBOURS_A_LINE):
            cells.append([None, *found[start : start + _NEIGHBOURS_A_LINE]])
    return _sheet(cells, title)


def _group_figure(groups: Sequence[Sequence[Member]], title: str) -> Figure:
    rows: list[list[_Cell]] = []
    for group in groups:
        cells = [
            _Cell(each.image, each.caption, each.heading, query=each is group[0]) for each in group
        ]
        if rows and len(rows[-1]) + len(cells) <= _CELLS_A_LINE:
            rows[-1] += cells
        else:
            rows.append(cells)
    return _sheet(rows, title)


@look()
def _sheet(rows: Sequence[Sequence[_Cell | None]], title: str) -> Figure:
    """Rows of cells; a row's first cell stands apart where it is a query, as does any later one."""
    if not any(rows):
        return note("There is nothing to show.", title)
    apart = any(cell is not None and cell.query for row in rows for cell in row)
    starts = [_starts(row, apart) for row in rows]
    width = max(_LEAST_WIDTH, 2 * _MARGIN + max(row[-1] for row in starts) + _SIDE)
    heights = [_row_height(row) for row in rows]
    top = _TITLE if title else 0.0
    judged = any(cell is not None and cell.correct is not None for row in rows for cell in row)
    bottom = _KEY if judged else 0.0
    height = 2 * _MARGIN - _GAP + top + sum(heights) + bottom
    figure = new_figure(width, height)
    if title:
        figure.text(
            _MARGIN / width,
            1 - (_MARGIN + 0.08) / height,
            fitted(title, width - 2 * _MARGIN, TITLE_SIZE, "bold"),
            size=TITLE_SIZE,
            weight="bold",
            va="center",
        )
    if judged:
        key = "✓ green: of the query's class     ✗ red: of another class"
        figure.text(_MARGIN / width, _MARGIN / height, key, size=SMALL_SIZE, color=MUTED)
    y = height - _MARGIN - top
    for row, places, row_height in zip(rows, starts, heights, strict=True):
        below_heading = y - _heading_height(row)
        for cell, x in zip(row, places, strict=True):
            if cell is not None:
                _draw_cell(figure, cell, _MARGIN + x, y, below_heading)
        y -= row_height
    return figure


def _starts(row: Sequence[_Cell | None], apart: bool) -> list[float]:
    """Where each cell of a row begins, in inches from the first."""
    starts = [0.0]
    for column, (before, cell) in enumerate(pairwise(row)):
        gap = _GAP
        if cell is not None and cell.query:
            gap = _GROUP_GAP
        elif (column == 0 and apart) or (before is not None and before.query):
            gap = _QUERY_GAP
        starts.append(starts[-1] + _SIDE + gap)
    return starts


def _row_height(row: Sequence[_Cell | None]) -> float:
    lines = max(len(cell.lines) for cell in row if cell is not None)
    return _heading_height(row) + _SIDE + lines * _LINE + _GAP


def _heading_height(row: Sequence[_Cell | None]) -> float:
    return _HEADING if any(cell.heading for cell in row if cell is not None) else 0.0


def _draw_cell(figure: Figure, cell: _Cell, left: float, top: float, below_heading: float) -> None:
    """Heading, image and caption, from the top left corner downwards, in inches."""
    width, height = figure.get_size_inches()

    def write(text: str, y: float, **options: Any) -> None:
        figure.text(
            (left + _SIDE / 2) / width, y / height, text, ha="center", size=SMALL_SIZE, **options
        )

    if cell.heading:
        weight = "bold" if cell.query else "normal"
        heading = fitted(cell.heading, _SIDE, SMALL_SIZE, weight)
        write(heading, top - 0.12, va="center", color=INK, weight=weight)
    _draw_image(figure, cell, left, below_heading)
    for number, line in enumerate(cell.lines):
        text = fitted(line, _SIDE + _GAP / 2, SMALL_SIZE)
        y = below_heading - _SIDE - (number + 0.75) * _LINE
        write(text, y, va="center", color=MUTED if number else INK)


def _draw_image(figure: Figure, cell: _Cell, left: float, top: float) -> None:
    """The image in the middle of its square, its frame, and the sign for right or wrong."""
    width, height = figure.get_size_inches()
    picture = None if cell.image is None else within(as_picture(cell.image), _PIXELS)
    proportions = (1, 1) if picture is None else picture.size
    across, down = (max(_SIDE * each / max(proportions), 0.05) for each in proportions)
    x, y = left + (_SIDE - across) / 2, top - (_SIDE + down) / 2
    axes = figure.add_axes((x / width, y / height, across / width, down / height))
    bare(axes)
    if picture is None:
        axes.set_facecolor(FAINT)
        axes.text(0.5, 0.5, "no image", transform=axes.transAxes, color=MUTED, ha="center")
    else:
        axes.imshow(np.asarray(picture), aspect="auto")
    if cell.correct is None:
        colour, line = (INK, 1.5) if cell.query else (FAINT, 0.8)
    else:
        colour, line = RIGHT if cell.correct else WRONG, _FRAME
        _draw_sign(axes, "✓" if cell.correct else "✗", colour)
    frame = Rectangle(
        (0, 0),
        1,
        1,
        transform=axes.transAxes,
        fill=False,
        edgecolor=colour,
        linewidth=line,
        joinstyle="miter",
        clip_on=False,
    )
    axes.add_patch(frame)


def _draw_sign(axes: Axes, sign: str, colour: str) -> None:
    """A badge in the upper right corner, for whom red and green are alike."""
    axes.annotate(
        sign,
        (1, 1),
        xycoords="axes fraction",
        xytext=(-8, -8),
        textcoords="offset points",
        ha="center",
        va="center",
        color="white",
        size=SMALL_SIZE,
        weight="bold",
        bbox={"boxstyle": "circle,pad=0.25", "facecolor": colour, "edgecolor": "white"},
        annotation_clip=False,
    )
