"""The best epoch and the early stop: pure functions of the history.

A history is a list of rows, one for each epoch:
{"epoch": 1, "loss": ..., "val_recall@1": ..., ...}.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from cbir_tf.training.standing import standing

History = Sequence[Mapping[str, float]]


def best_epoch(history: History, monitor: str, min_delta: float = 0.0) -> int | None:
    """The last epoch that improved on all epochs before it; from 1.

    An epoch improves by a change of the monitor of more than min_delta or, where the monitor is
    equal to that of the best one, by a higher val_map_at_r, then by a lower val_loss. Lower is
    better for a monitor that ends in "loss", higher for any other. NaN is no improvement; None
    where no epoch improved.

    Example:
        >>> history = [
        ...     {"epoch": 1, "val_recall@1": 0.9, "val_map_at_r": 0.6},
        ...     {"epoch": 2, "val_recall@1": 0.9, "val_map_at_r": 0.7},
        ... ]
        >>> best_epoch(history, "val_recall@1")
        2
    """
    return _last_improvement(history, monitor, min_delta, ties=True)


def should_stop(
    history: History, monitor: str, patience: int | None, min_delta: float = 0.0
) -> bool:
    """Whether the last `patience` epochs brought no improvement; never with patience None.

    Improvements are those of `best_epoch`. With a min_delta those between equal values of the
    monitor do not count, as they may be as small as they like.

    Example:
        >>> history = [{"epoch": 1, "val_loss": 0.5}, {"epoch": 2, "val_loss": 0.6}]
        >>> should_stop(history, "val_loss", patience=1), should_stop(history, "val_loss", None)
        (True, False)
    """
    if patience is None or not history:
        return False
    last = _last_improvement(history, monitor, min_delta, ties=not min_delta) or 0
    return int(history[-1]["epoch"]) - last >= patience


def _last_improvement(history: History, monitor: str, min_delta: float, ties: bool) -> int | None:
    """Number of the last epoch that improved, by another figure too where `ties` are broken."""
    best: int | None = None
    highest: tuple[float, ...] = (-math.inf,)
    for row in history:
        this = standing(row, monitor)
        is_tie = ties and best is not None and this[0] == highest[0]
        if this[0] > highest[0] + min_delta or (is_tie and this > highest):
            best, highest = int(row["epoch"]), this
    return best
