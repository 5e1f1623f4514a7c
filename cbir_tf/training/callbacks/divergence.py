"""A loss that is no longer a number ends the training."""

from __future__ import annotations

import math
from collections.abc import Mapping

from cbir_tf.errors import UserError


class Diverged(UserError):
    """A training that came to nothing; another configuration may do better."""

    def __init__(self, epoch: int, sign: str) -> None:
        super().__init__(
            f"epoch {epoch + 1}: training diverged, {sign}; lower "
            "optimizer.learning_rate or set optimizer.clip_norm"
        )


def refuse_divergence(epoch: int, logs: Mapping[str, float]) -> None:
    """Raise Diverged unless the loss of this epoch, counted from 0, is a finite number."""
    if not math.isfinite(logs["loss"]):
        raise Diverged(epoch, f"the loss is {logs['loss']}")
