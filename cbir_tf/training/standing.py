"""How epochs and trials are ranked: by the monitor, then by MAP@R, then by the loss."""

from __future__ import annotations

import math
from collections.abc import Mapping

TIE_BREAKERS = ("val_map_at_r", "val_loss")
"""What decides between equal values of the monitor, which recall@1 of a small split often has."""


def lower_is_better(name: str) -> bool:
    """Whether a figure is a loss."""
    return name.endswith("loss")


def standing(figures: Mapping[str, float], monitor: str) -> tuple[float, ...]:
    """A tuple for each epoch or trial, the larger the better.

    Args:
        figures: by name; of the tie breakers those that there are.
        monitor: name of the figure that counts first.

    Returns:
        The monitor, MAP@R and the validation loss, losses negated; -infinity for what is not there
        or not a number.

    Example:
        >>> early = {"val_recall@1": 1.0, "val_map_at_r": 0.71, "val_loss": 0.1}
        >>> late = {"val_recall@1": 1.0, "val_map_at_r": 0.78, "val_loss": 0.2}
        >>> standing(late, "val_recall@1") > standing(early, "val_recall@1")
        True
    """
    values = []
    for name in (monitor, *TIE_BREAKERS):
        value = figures.get(name, math.nan) * (-1 if lower_is_better(name) else 1)
        values.append(-math.inf if math.isnan(value) else value)
    return tuple(values)
