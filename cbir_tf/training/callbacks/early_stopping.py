"""The best epoch and the early stop: pure functions of the history.

A history is a list of rows, one for each epoch:
{"epoch": 1, "loss": ..., "val_recall@1": ..., ...}.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

History = Sequence[Mapping[str, float]]


def best_epoch(history: History, monitor: str, min_delta: float = 0.0) -> int | None:
    """The last epoch that improved on all epochs before it by more than min_delta; from 1.

    Lower is better for a monitor that ends in "loss", higher for any other. NaN is no improvement;
    None where no epoch improved.

    Example:
        >>> history = [{"epoch": 1, "val_loss": 0.5}, {"epoch": 2, "val_loss": 0.6}]
        >>> best_epoch(history, "val_loss")
        1
    """
    sign = -1 if monitor.endswith("loss") else 1
    best, highest = None, -math.inf
    for row in history:
        value = sign * row[monitor]
        if value > highest + min_delta:
            best, highest = int(row["epoch"]), value
    return best


def should_stop(
    history: History, monitor: str, patience: int | None, min_delta: float = 0.0
) -> bool:
    """Whether the last `patience` epochs brought no improvement; never with patience None.

    Example:
        >>> history = [{"epoch": 1, "val_loss": 0.5}, {"epoch": 2, "val_loss": 0.6}]
        >>> should_stop(history, "val_loss", patience=1), should_stop(history, "val_loss", None)
        (True, False)
    """
    if patience is None or not history:
        return False
    best = best_epoch(history, monitor, min_delta) or 0
    return int(history[-1]["epoch"]) - best >= patience
