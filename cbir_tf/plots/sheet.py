"""One sheet of images, each with its heading, caption and frame."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

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
)
from cbir_tf.plots.thumbnails import as_picture, within

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
_PIXELS = 480  # longest side of an image as drawn; more would not be visible
_CAPTION_LINES = 3

Pixels = np.ndarray | None
"""uint8 pixels, gray, RGB or RGBA, of any size; None where there is no image to show."""


@dataclass(frozen=True)
class Cell:
    """One image of a sheet.

    Attributes:
        image: uint8 pixels, or None.
        caption: up to three lines below it.
        heading: a word or two above it.
        correct: frame of a correct (true) or wrong (false) result; None: a neutral frame.
        query: whether this is a query, which has a gap to the results.
    """

    image: Pixels
    caption: str = ""
    heading: str = ""
    correct: bool | None = None
    query: bool = False

    @property
    def lines(self) -> list[str]:
        return self.caption.splitlines()[:_CAPTION_LINES]


@look()
def sheet(rows: Sequence[Sequence[Cell | None]], title: str) -> Figure:
    """Rows of cells; queries have a gap to the cells beside them.

    Args:
        rows: cells from left to right, None for an empty place.
        title: above the sheet.
    """
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


def _starts(row: Sequence[Cell | None], apart: bool) -> list[float]:
    """Left edge of each cell of a row, in inches from the first."""
    starts = [0.0]
    for column, (before, cell) in enumerate(pairwise(row)):
        gap = _GAP
        if cell is not None and cell.query:
            gap = _GROUP_GAP
        elif (column == 0 and apart) or (before is not None and before.query):
            gap = _QUERY_GAP
        starts.append(starts[-1] + _SIDE + gap)
    return starts


def _row_height(row: Sequence[Cell | None]) -> float:
    lines = max(len(cell.lines) for cell in row if cell is not None)
    return _heading_height(row) + _SIDE + lines * _LINE + _GAP


def _heading_height(row: Sequence[Cell | None]) -> float:
    return _HEADING if any(cell.heading for cell in row if cell is not None) else 0.0


def _draw_cell(figure: Figure, cell: Cell, left: float, top: float, below_heading: float) -> None:
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


def _draw_image(figure: Figure, cell: Cell, left: float, top: float) -> None:
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
    """A badge in the upper right corner, for people who cannot distinguish red and green."""
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
