"""A loss that is no longer a number ends the training."""

from __future__ import annotations

import math
from collections.abc import Mapping

from cbir_tf.errors import UserError


def refuse_divergence(epoch: int, logs: Mapping[str, float]) -> None:
    """Raise a UserError unless the loss of this epoch, counted from 0, is a finite number."""
    if not math.isfinite(logs["loss"]):
        raise UserError(
            f"epoch {epoch + 1}: training diverged, the loss is {logs['loss']}; lower "
            "optimizer.learning_rate or set optimizer.clip_norm"
        )
