"""The trials of a hyper-parameter search, by number and by parameter."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import accumulate
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator, NullFormatter

from cbir_tf.config.ranges import Choices, Parameter, Space
from cbir_tf.plots.curves import rate_name
from cbir_tf.plots.style import (
    INK,
    MUTED,
    PALETTE,
    RIGHT,
    SMALL_SIZE,
    look,
    new_figure,
    note,
    padded,
    save,
    shortened,
)

COLUMNS = 3
_CHOICE_LENGTH = 16
_FEW_TICKS = 9
_STATES: Mapping[str, dict[str, Any]] = {
    "complete": {"color": PALETTE[0], "marker": "o"},
    "pruned": {"facecolors": "white", "edgecolors": MUTED, "marker": "o"},
}


def trials_plot(
    path: Path,
    rows: Sequence[Mapping[str, Any]],
    space: Space,
    monitor: str,
    best: int | None = None,
) -> Path:
    """Write the value of each trial by its number and by each parameter; the best is marked.

    Args:
        path: where to write.
        rows: of `cbir_tf.tuning.study.trial_rows`; those without a value are left out.
        space: what was searched.
        monitor: what the values are; lower is better if it ends in "loss".
        best: number of the best trial, which is marked; None: none is.

    Raises:
        UserError: the file cannot be written.
    """
    return save(_figure(rows, space, monitor, best), path)


@look()
def _figure(
    rows: Sequence[Mapping[str, Any]], space: Space, monitor: str, number: int | None
) -> Figure:
    drawn = [row for row in rows if row["value"] is not None]
    if not drawn:
        return note("No trial has a value yet.", "Trials")
    panels = 1 + len(space)
    columns = min(COLUMNS, panels)
    lines = -(-panels // columns)
    figure = new_figure(0.8 + 4.0 * columns, 0.5 + 3.4 * lines, layout=padded())
    every_axes = figure.subplots(lines, columns, sharey=True, squeeze=False).flatten().tolist()
    for unused in every_axes[panels:]:
        unused.set_visible(False)
    whole = [row for row in drawn if row["state"] == "complete"]
    choose = min if monitor.endswith("loss") else max
    best = next((row for row in whole if row["number"] == number), None)
    by_number = every_axes[0]
    if whole:
        values = list(accumulate((row["value"] for row in whole), choose))
        numbers = [row["number"] for row in whole]
        last = max(row["number"] for row in drawn)
        by_number.plot(
            [*numbers, last],
            [*values, values[-1]],
            color=RIGHT,
            linewidth=1.2,
            drawstyle="steps-post",
            zorder=1,
            label="best so far",
        )
    _scatter(by_number, drawn, [row["number"] for row in drawn], best)
    by_number.set_title("Trials")
    by_number.set_xlabel("trial", color=MUTED)
    by_number.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    for axes, parameter in zip(every_axes[1:], space, strict=False):
        _by_parameter(axes, drawn, parameter, best)
    for axes in every_axes[:panels]:
        axes.grid(axis="y")
        axes.set_ylabel(monitor if axes in every_axes[::columns] else "")
    figure.legend(
        *by_number.get_legend_handles_labels(),
        loc="outside lower center",
        ncols=4,
        fontsize=SMALL_SIZE,
    )
    return figure


def _by_parameter(
    axes: Axes, rows: Sequence[Mapping[str, Any]], parameter: Parameter, best: Any
) -> None:
    values = [row["parameters"][parameter.key] for row in rows]
    if isinstance(parameter, Choices):
        _scatter(axes, rows, [parameter.values.index(each) for each in values], best)
        names = [shortened(each, _CHOICE_LENGTH) for each in parameter.values]
        crowded = len(names) > 4 or max(map(len, names)) * len(names) > 40
        axes.set_xticks(range(len(names)), names, rotation=25 if crowded else 0)
        for label in axes.get_xticklabels() if crowded else []:
            label.set_horizontalalignment("right")
        axes.set_xlim(-0.5, len(names) - 0.5)
    else:
        _scatter(axes, rows, values, best)
        if parameter.log:
            axes.set_xscale("log")
            axes.xaxis.set_major_formatter(FuncFormatter(rate_name))
            axes.xaxis.set_minor_formatter(NullFormatter())
            factor = (parameter.high / parameter.low) ** 0.05
            axes.set_xlim(parameter.low / factor, parameter.high * factor)
        else:
            margin = (parameter.high - parameter.low) * 0.05
            axes.set_xlim(parameter.low - margin, parameter.high + margin)
            if parameter.count <= _FEW_TICKS:
                axes.set_xticks([float(each) for each in parameter.examples()])
            else:
                axes.xaxis.set_major_locator(MaxNLocator(nbins=6, integer=parameter.whole))
    axes.set_title(shortened(parameter.key, 36))


def _scatter(
    axes: Axes, rows: Sequence[Mapping[str, Any]], places: Sequence[float], best: Any
) -> None:
    """Draw a dot for each trial, styled by its state, and a star for the best one."""
    for state, options in _STATES.items():
        chosen = [
            (place, row["value"])
            for place, row in zip(places, rows, strict=True)
            if row["state"] == state and row is not best
        ]
        if chosen:
            label = {"complete": "trained to the end", "pruned": "ended early"}[state]
            across, up = zip(*chosen, strict=True)
            axes.scatter(across, up, s=26, label=label, **options)
    if best is not None:
        place = places[[row is best for row in rows].index(True)]
        axes.scatter(
            [place],
            [best["value"]],
            s=150,
            marker="*",
            color=RIGHT,
            edgecolors=INK,
            linewidths=0.5,
            zorder=3,
            label=f"best: trial {best['number']}",
        )
