"""Bar chart of the number of images by class and split."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, StrMethodFormatter

from cbir_tf.plots.style import (
    MUTED,
    PALETTE,
    SMALL_SIZE,
    UNLABELLED_COLOUR,
    fitted,
    heading,
    look,
    new_figure,
    note,
    save,
    text_width,
)
from cbir_tf.types import SPLITS

MOST_BARS = 80
_BAR = 0.21  # inches from one bar to the next
_NAME_WIDTH = 1.9
_BARS_WIDTH = 5.2


def class_counts(
    path: Path,
    labels: np.ndarray,
    split: np.ndarray,
    class_names: Sequence[str],
    title: str = "Images by class",
) -> Path:
    """Write a bar chart of the images by class and split, the largest class on top.

    With more than 80 classes only the largest are shown, as the title states.

    Args:
        path: where to write.
        labels: (N,) integers into `class_names`; unlabelled images, -1, are left out.
        split: (N,) train, validation, test, or empty.
        class_names: C names; a class without images has no bar.
        title: above the bars.

    Raises:
        UserError: the file cannot be written.
    """
    return save(_figure(labels, split, class_names, title), path)


@look()
def _figure(
    labels: np.ndarray, split: np.ndarray, class_names: Sequence[str], title: str
) -> Figure:
    labels, split = np.asarray(labels), np.asarray(split)
    totals = np.bincount(labels[labels >= 0], minlength=len(class_names))
    present = int((totals > 0).sum())
    if not present:
        return note("No image has a label.", title)
    shown = np.argsort(-totals, kind="stable")[: min(present, MOST_BARS)]
    if present > len(shown):
        title = f"{title}: the {len(shown)} largest of {present:,}"
    names = [fitted(class_names[each], _NAME_WIDTH, SMALL_SIZE) for each in shown]
    left = 0.4 + max(text_width(name, SMALL_SIZE) for name in names)
    width, height = left + _BARS_WIDTH + 0.6, _BAR * len(shown) + 1.25
    figure = new_figure(width, height)
    axes = figure.add_axes(
        (left / width, 0.5 / height, _BARS_WIDTH / width, _BAR * len(shown) / height)
    )
    _draw_bars(axes, labels, split, shown)
    axes.set_yticks(range(len(shown)), names)
    axes.tick_params(axis="y", length=0)
    axes.set_ylim(len(shown) - 0.5, -0.5)
    axes.set_xlim(0, totals.max() * 1.02)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, steps=[1, 2, 5, 10]))
    axes.xaxis.set_major_formatter(StrMethodFormatter("{x:,.0f}"))
    axes.set_xlabel("images", size=SMALL_SIZE)
    axes.grid(axis="x")
    axes.spines["left"].set_visible(False)
    heading(figure, title, left=0.3, below=0.3)
    handles, splits = axes.get_legend_handles_labels()
    figure.legend(
        handles,
        splits,
        loc="upper left",
        bbox_to_anchor=(0.22 / width, 1 - 0.42 / height),
        ncols=len(splits),
        borderaxespad=0.2,
        handlelength=1.0,
    )
    return figure


def _draw_bars(axes: Axes, labels: np.ndarray, split: np.ndarray, shown: np.ndarray) -> None:
    """A bar for each shown label, stacked by split, with its number of images at the end."""
    rows = np.arange(len(shown))
    ends = np.zeros(len(shown), dtype=int)
    for name, colour in zip(
        (*SPLITS, ""), (*PALETTE[:2], PALETTE[4], UNLABELLED_COLOUR), strict=True
    ):
        chosen = labels[(split == name) & (labels >= 0)]
        counts = np.bincount(chosen, minlength=shown.max() + 1)[shown]
        if len(chosen):
            axes.barh(rows, counts, 0.72, left=ends, color=colour, label=name or "in no split")
        ends = ends + counts
    for row, total in zip(rows, ends, strict=True):
        axes.annotate(
            f"{total:,}",
            (total, row),
            (4, 0),
            textcoords="offset points",
            va="center_baseline",
            size=SMALL_SIZE,
            color=MUTED,
        )
