"""The confusion matrix, and a sheet of the wrong results."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter
from scipy.sparse import csr_array

from cbir_tf.plots.grids import NeighbourRow, query_grid
from cbir_tf.plots.style import (
    INK,
    SMALL_SIZE,
    TEXT_SIZE,
    TITLE_SIZE,
    fitted,
    look,
    new_figure,
    note,
    save,
    text_width,
)

MOST_CLASSES = 100
# Inches.
_NAME_WIDTH = 1.9


def confusion_matrix_png(
    path: Path,
    matrix: np.ndarray | csr_array,
    class_names: Sequence[str],
    title: str = "Confusion matrix",
) -> Path:
    """Write the confusion matrix, each count coloured by its share of the true class.

    Of more than 100 classes only those of the most frequent mistakes are shown, as the title
    states; shares and the summary stay those of all classes.

    Args:
        path: where to write.
        matrix: (C, C) counts, may be sparse; rows are true classes, columns predicted ones.
        class_names: C names.
        title: above the matrix.

    Raises:
        UserError: the file cannot be written.
    """
    return save(_figure(matrix, class_names, title), path)


def mistakes_grid(
    path: Path,
    rows: Sequence[NeighbourRow],
    title: str = "Queries whose nearest neighbour is of another class",
) -> Path:
    """Write queries whose nearest neighbour is of another class, each with its neighbours.

    Raises:
        UserError: the file cannot be written.
    """
    return query_grid(path, rows, title)


@look()
def _figure(matrix: np.ndarray | csr_array, class_names: Sequence[str], title: str) -> Figure:
    every, shape = csr_array(matrix), (len(class_names),) * 2
    if every.shape != shape or every.data.min(initial=0) < 0:
        raise ValueError(f"matrix must be {shape} counts, got {every.shape}")
    if not len(class_names):
        return note("There are no classes.", title)
    shown = _most_confused(every)
    if len(shown) < len(class_names):
        title = f"{title}: the {len(shown)} most confused of {len(class_names):,} classes"
    counts = every[shown][:, shown].toarray()
    class_names, classes = [class_names[each] for each in shown], len(shown)
    cell = _cell_side(classes)
    name_size = float(np.clip(cell * 72 * 0.62, 4.0, TEXT_SIZE))
    names = [fitted(name, _NAME_WIDTH, name_size) for name in class_names]
    name_width = max(text_width(name, name_size) for name in names)
    side = cell * classes
    upright = name_width > 0.9 * cell
    scale = float(np.clip(side / 7, 1, 2.5))  # a large sheet is viewed from a larger distance
    left, top = name_width + 0.65 * scale, 0.85 * scale
    bottom = (name_width if upright else 0.15) + 0.65 * scale
    width, height = max(left + side + 0.95 * scale, 4.6), top + side + bottom
    figure = new_figure(width, height)
    axes = figure.add_axes((left / width, bottom / height, side / width, side / height))
    totals = every.sum(axis=1)[shown, np.newaxis]
    shares = np.divide(counts, totals, out=np.zeros(counts.shape), where=totals > 0)
    image = axes.imshow(shares, cmap="Blues", vmin=0, vmax=1, aspect="auto", interpolation="none")
    _name_classes(axes, names, name_size, cell, upright)
    axes.set_xlabel("predicted class", labelpad=8, size=TEXT_SIZE * scale)
    axes.set_ylabel("true class", labelpad=8, size=TEXT_SIZE * scale)
    _write_counts(axes, counts, shares, cell)
    bar = min(side, 6.0 * scale)
    bar_axes = figure.add_axes(
        ((left + side + 0.15) / width, 1 - (top + bar) / height, 0.14 * scale / width, bar / height)
    )
    ticks = figure.colorbar(image, cax=bar_axes, format=PercentFormatter(1.0))
    ticks.outline.set_visible(False)
    ticks.set_label("share of the true class", size=TEXT_SIZE * scale)
    bar_axes.tick_params(labelsize=SMALL_SIZE * scale)
    _write_title(figure, every, title, scale)
    return figure


def _most_confused(matrix: csr_array) -> np.ndarray:
    """Positions of the classes to show, ascending."""
    classes = matrix.shape[0]
    if classes <= MOST_CLASSES:
        return np.arange(classes)
    counts = matrix.tocoo()
    wrong = np.flatnonzero(counts.row != counts.col)
    wrong = wrong[np.argsort(-counts.data[wrong], kind="stable")]
    pairs = np.stack([counts.row[wrong], counts.col[wrong]], axis=1).ravel()
    # Both classes of the most frequent mistakes; then, where there are few mistakes, large classes.
    candidates = np.concatenate([pairs, np.argsort(-matrix.sum(axis=1), kind="stable")])
    _, first = np.unique(candidates, return_index=True)
    return np.sort(candidates[np.sort(first)[:MOST_CLASSES]])


def _cell_side(classes: int) -> float:
    """Inches: large cells for few classes, small ones for many."""
    sides = np.interp(classes, [2, 5, 10, 30, MOST_CLASSES], [0.95, 0.8, 0.58, 0.36, 0.24])
    return float(sides)


def _name_classes(
    axes: Axes, names: Sequence[str], size: float, cell: float, upright: bool
) -> None:
    every = max(1, int(np.ceil(size / 72 * 1.1 / cell)))
    ticks = range(0, len(names), every)
    axes.set_xticks(ticks, names[::every], rotation=90 if upright else 0, size=size)
    axes.set_yticks(ticks, names[::every], size=size)
    axes.tick_params(length=0, pad=4)
    axes.spines[:].set_visible(False)
    lines = np.arange(-0.5, len(names))
    axes.set_xticks(lines, minor=True)
    axes.set_yticks(lines, minor=True)
    axes.grid(which="minor", linewidth=min(1.0, cell * 3))
    axes.tick_params(which="minor", length=0)


def _write_counts(axes: Axes, counts: np.ndarray, shares: np.ndarray, cell: float) -> None:
    """Write each count other than 0, in the largest font size at which the longest count fits."""
    longest = max((f"{count:,}" for count in counts.flat), key=len)
    fitting = TEXT_SIZE * 0.82 * cell / text_width(longest, TEXT_SIZE)
    size = float(min(TEXT_SIZE, fitting, cell * 72 * 0.6))
    for row, column in np.argwhere(counts):
        axes.text(
            column,
            row,
            f"{counts[row, column]:,}",
            ha="center",
            va="center",
            size=size,
            color="white" if shares[row, column] > 0.5 else INK,
        )


def _write_title(figure: Figure, matrix: csr_array, title: str, scale: float) -> None:
    width, height = figure.get_size_inches()
    total, right = int(matrix.sum()), int(matrix.diagonal().sum())
    summary = f"{total:,} images"
    if total:
        summary += f", {right / total:.1%} of them on the diagonal"
    for text, below, size, weight in (
        (title, 0.3, TITLE_SIZE * scale, "bold"),
        (summary, 0.58, SMALL_SIZE * scale, "normal"),
    ):
        figure.text(
            0.3 / width,
            1 - below * scale / height,
            fitted(text, width - 0.5, size, weight),
            size=size,
            weight=weight,
            va="center",
        )
