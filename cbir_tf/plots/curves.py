"""Training curves: loss, retrieval metrics and learning rate by epoch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator

from cbir_tf.plots.style import (
    INK,
    MUTED,
    PALETTE,
    SMALL_SIZE,
    WRONG,
    look,
    new_figure,
    note,
    padded,
    save,
    shortened,
)

_RETRIEVAL = ("recall", "precision", "map", "r_precision", "mrr", "accuracy")
_FIRST_METRIC_COLOUR = 4  # metrics do not share the colours of the losses
_FEW_EPOCHS = 30  # up to this number each epoch has a dot
_WIDE_RANGE = 30.0  # from this ratio, learning rates have a logarithmic scale


def loss_curves(
    path: Path,
    history: Mapping[str, Sequence[float]],
    best: int | None = None,
    loss: str = "triplet loss",
) -> Path:
    """Write the training and validation loss, and beside it the validation retrieval metrics.

    Epochs whose value is not finite are left out of the
    line and named.

    Args:
        path: where to write.
        history: for each name, a value an epoch: loss, val_loss, val_recall@1, val_map_at_r ...;
            names that are neither loss nor a validation retrieval metric are left out.
        best: the best epoch, from 1, which is marked; None: none is.
        loss: what the loss is called.

    Raises:
        UserError: the file cannot be written.
    """
    return save(_loss_figure(history, best, loss), path)


def learning_rate_curve(
    path: Path, steps: Sequence[int], rates: Sequence[float], steps_per_epoch: int
) -> Path:
    """Write the learning rate over the epochs, on a logarithmic scale if its range is wide.

    Args:
        path: where to write.
        steps: ascending training steps, from 0.
        rates: the learning rate from each of these steps on.
        steps_per_epoch: steps.

    Raises:
        UserError: the file cannot be written.
    """
    return save(_rate_figure(steps, rates, steps_per_epoch), path)


@look()
def _loss_figure(
    history: Mapping[str, Sequence[float]], best: int | None, loss: str = "triplet loss"
) -> Figure:
    losses = [name for name in ("loss", "val_loss") if len(history.get(name, ()))]
    metrics = [name for name in history if _is_retrieval(name) and len(history[name])]
    panels = [names for names in (losses, metrics) if names]
    if not panels:
        return note("No epoch has been recorded yet.", "Training")
    figure = new_figure(0.8 + 4.8 * len(panels), 4.2, layout=padded())
    every_axes = np.atleast_1d(figure.subplots(1, len(panels)))
    for axes, names in zip(every_axes, panels, strict=True):
        of_loss = names is losses
        for number, name in enumerate(names):
            colour = PALETTE[(number + (0 if of_loss else _FIRST_METRIC_COLOUR)) % len(PALETTE)]
            _draw_series(axes, history[name], _series_name(name, of_loss), colour)
        axes.set_title("Loss" if of_loss else _metrics_title(names))
        axes.set_ylabel(loss if of_loss else "score (0 to 1)")
        longest = max(len(history[name]) for name in names)
        _finish(axes, longest)
        if best is not None and best <= longest:
            axes.axvline(
                best,
                color=INK,
                linewidth=1,
                linestyle=(0, (3, 3)),
                zorder=1,
                label=f"best epoch: {best}",
            )
        broken = [_not_finite(history[name]) for name in names]
        _tell_not_finite(axes, sorted(set().union(*broken)))
        axes.legend(loc="best", frameon=True, framealpha=0.9, edgecolor="none")
    return figure


@look()
def _rate_figure(steps: Sequence[int], rates: Sequence[float], steps_per_epoch: int) -> Figure:
    if steps_per_epoch < 1:
        raise ValueError(f"steps_per_epoch must be at least 1, got {steps_per_epoch}")
    epochs = np.asarray(steps, dtype=float) / steps_per_epoch
    values = np.asarray(rates, dtype=float)
    if epochs.shape != values.shape or epochs.ndim != 1:
        raise ValueError(f"steps {epochs.shape} and rates {values.shape} must both be (N,)")
    if not len(values):
        return note("No step has been recorded yet.", "Learning rate")
    figure = new_figure(6.4, 4.0, layout=padded())
    axes = figure.subplots()
    few = len(values) <= _FEW_EPOCHS
    # The last rate is drawn as long as the shortest interval.
    end = epochs[-1] + (np.diff(epochs).min() if len(epochs) > 1 else 1.0)
    axes.plot(
        [*epochs, end],
        [*values, values[-1]],
        color=PALETTE[0],
        drawstyle="steps-post",
        marker="o" if few else "",
        markevery=range(len(values)),
        markersize=4,
    )
    axes.set_title("Learning rate")
    axes.set_xlabel(f"epoch ({steps_per_epoch:,} steps each)")
    axes.set_ylabel("learning rate")
    positive = values[np.isfinite(values) & (values > 0)]
    if len(positive) and positive.max() / positive.min() >= _WIDE_RANGE:
        axes.set_yscale("log", nonpositive="mask")
    axes.yaxis.set_major_formatter(FuncFormatter(rate_name))
    axes.xaxis.set_major_locator(MaxNLocator(integer=end >= 3, steps=[1, 2, 5, 10]))
    axes.grid(axis="y", which="major")
    return figure


def rate_name(rate: float, _: int | None = None) -> str:
    """A learning rate as in configuration files: 0.01, 1e-5, 2.5e-4."""
    if rate == 0 or abs(rate) >= 1e-3:
        return f"{rate:.4g}"
    mantissa, exponent = f"{rate:.2e}".split("e")
    return f"{float(mantissa):g}e{int(exponent)}"


def _is_retrieval(name: str) -> bool:
    return name.startswith("val_") and name.removeprefix("val_").startswith(_RETRIEVAL)


def _metrics_title(names: Sequence[str]) -> str:
    classified = "val_accuracy" in names
    return "Validation accuracy and retrieval" if classified else "Validation retrieval"


def _series_name(name: str, of_loss: bool) -> str:
    if of_loss:
        return {"loss": "training", "val_loss": "validation"}[name]
    name = name.removeprefix("val_")
    return {"map": "mAP", "map_at_r": "MAP@R"}.get(name, shortened(name, 30))


def _not_finite(values: Sequence[float]) -> set[int]:
    return set(np.flatnonzero(~np.isfinite(np.asarray(values, dtype=float))) + 1)


def _draw_series(axes: Axes, values: Sequence[float], name: str, colour: str) -> None:
    series = np.asarray(values, dtype=float)
    series[~np.isfinite(series)] = np.nan
    marker = "o" if len(series) <= _FEW_EPOCHS else ""
    axes.plot(
        np.arange(1, len(series) + 1), series, color=colour, marker=marker, markersize=4, label=name
    )


def _tell_not_finite(axes: Axes, epochs: Sequence[int]) -> None:
    if epochs:
        named = ", ".join(map(str, epochs[:5])) + (", …" if len(epochs) > 5 else "")
        text = f"not finite: epoch {named}"
        axes.set_title(text, loc="right", color=WRONG, size=SMALL_SIZE, weight="normal")


def _finish(axes: Axes, epochs: int) -> None:
    axes.set_xlabel("epoch")
    axes.set_xlim(0.5, epochs + 0.5)
    axes.xaxis.set_major_locator(
        MaxNLocator(integer=True, nbins=10, steps=[1, 2, 5, 10], min_n_ticks=1)
    )
    axes.grid(axis="y")
    axes.tick_params(color=MUTED)
