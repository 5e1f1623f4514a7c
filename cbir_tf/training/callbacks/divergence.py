"""The end of a training whose loss is no longer a finite number."""

from __future__ import annotations

import math
from collections.abc import Mapping

from cbir_tf.errors import UserError


class Diverged(UserError):
    """The training diverged; another configuration may not.

    Args:
        epoch: from 0.
        sign: what shows it, such as "the loss is nan".
    """

    def __init__(self, epoch: int, sign: str) -> None:
        super().__init__(
            f"epoch {epoch + 1}: training diverged, {sign}; lower "
            "optimizer.learning_rate or set optimizer.clip_norm"
        )


def check_finite(epoch: int, logs: Mapping[str, float]) -> None:
    """Raise Diverged unless the loss of this epoch, counted from 0, is a finite number."""
    if not math.isfinite(logs["loss"]):
        raise Diverged(epoch, f"the loss is {logs['loss']}")
