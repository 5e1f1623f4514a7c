"""Several runs side by side."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from cbir_tf.plots.style import MARKERS, MUTED, PALETTE, SMALL_SIZE, look, new_figure, save


def comparison_plot(
    path: Path,
    ranks: Sequence[int],
    series: Mapping[str, Mapping[str, Sequence[tuple[float, float, float]]]],
) -> Path:
    """Figures by rank, one panel a figure, one line a run, with intervals.

    Args:
        path: of the PNG file.
        ranks: the k of each point.
        series: figure -> run -> (value, low, high) at each rank.

    Raises:
        UserError: the file cannot be written.
    """
    with look():
        figure = new_figure(4.2 * len(series), 3.8, layout="constrained")
        panels = figure.subplots(1, len(series), squeeze=False)[0]
        for axes, (name, runs) in zip(panels, series.items(), strict=True):
            for number, (run, points) in enumerate(runs.items()):
                values, lows, highs = zip(*points, strict=True)
                below = [max(0, value - low) for value, low in zip(values, lows, strict=True)]
                above = [max(0, high - value) for value, high in zip(values, highs, strict=True)]
                # Beside each other, or the intervals hide one another.
                aside = 0.06 * (number - (len(runs) - 1) / 2)
                places = [place + aside for place in range(len(ranks))]
                axes.errorbar(
                    places,
                    values,
                    yerr=[below, above],
                    label=run,
                    color=PALETTE[number % len(PALETTE)],
                    marker=MARKERS[number // len(PALETTE) % len(MARKERS)][0],
                    capsize=3,
                )
            axes.set_xticks(range(len(ranks)), [str(rank) for rank in ranks])
            axes.set_xlabel("k", color=MUTED)
            axes.set_title(name)
            axes.set_ylim(top=min(1.02, axes.get_ylim()[1]))
        figure.legend(
            *panels[0].get_legend_handles_labels(),
            loc="outside lower center",
            ncols=min(3, len(next(iter(series.values())))),
            fontsize=SMALL_SIZE,
        )
        return save(figure, path)
