"""Comparison of runs: quality by rank, and quality by speed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes

from cbir_tf.plots.style import MUTED, SMALL_SIZE, appearance, look, new_figure, save, shortened

BY_RANK = ("recall", "precision")
NAME_LENGTH = 36
Point = tuple[float, float, float]
"""A value and the ends of its interval."""


@look()
def comparison_plot(path: Path, runs: Sequence[Mapping[str, Any]]) -> Path:
    """Write recall and precision by k, and mAP by images per second; one colour for each run.

    Args:
        path: of the PNG file.
        runs: those of `cbir_tf.evaluation.report`.

    Raises:
        UserError: the file cannot be written.
    """
    rows = -(-len(runs) // 3)
    figure = new_figure(13, 3.9 + 0.22 * rows, layout="constrained")
    *by_rank, by_speed = figure.subplots(1, len(BY_RANK) + 1)
    names = runs[0]["figures"]
    ranks = sorted(int(name.partition("@")[2]) for name in names if name.startswith("recall@"))
    for axes, name in zip(by_rank, BY_RANK, strict=True):
        for number, run in enumerate(runs):
            # Side by side, so that the intervals do not overlap.
            offset = 0.3 * ((number + 0.5) / len(runs) - 0.5)
            places = [place + offset for place in range(len(ranks))]
            _draw(axes, places, [_point(run, f"{name}@{rank}") for rank in ranks], number, run)
        axes.set_xticks(range(len(ranks)), [str(rank) for rank in ranks])
        axes.set_xlim(-0.4, len(ranks) - 0.6)
        _finish(axes, f"{name}@k", "k")
    for number, run in enumerate(runs):
        speed = run["images_per_second"]["median"]
        _draw(by_speed, [speed], [_point(run, "map")], number, run)
    by_speed.margins(x=0.15)
    by_speed.set_xlim(left=0)
    _finish(by_speed, "map", "images a second")
    figure.legend(
        *by_rank[0].get_legend_handles_labels(),
        loc="outside lower center",
        ncols=min(3, len(runs)),
        fontsize=SMALL_SIZE,
    )
    return save(figure, path)


def _point(run: Mapping[str, Any], name: str) -> Point:
    value = run["figures"][name]
    low, high = run["intervals"].get(name, (value, value))
    return value, low, high


def _draw(
    axes: Axes,
    places: Sequence[float],
    points: Sequence[Point],
    number: int,
    run: Mapping[str, Any],
) -> None:
    values, lows, highs = zip(*points, strict=True)
    # A percentile interval does not always contain the mean.
    below = [max(0, value - low) for value, low in zip(values, lows, strict=True)]
    above = [max(0, high - value) for value, high in zip(values, highs, strict=True)]
    colour, marker, _ = appearance(number)
    axes.errorbar(
        places,
        values,
        yerr=[below, above],
        label=shortened(run["run"], NAME_LENGTH),
        color=colour,
        marker=marker,
        markersize=5,
        capsize=3,
    )


def _finish(axes: Axes, title: str, below: str) -> None:
    axes.set_title(title)
    axes.set_xlabel(below, color=MUTED)
    axes.grid(axis="y")
    axes.set_ylim(top=min(1.01, axes.get_ylim()[1]))
