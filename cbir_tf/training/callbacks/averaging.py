"""The moving average of the weights, where the optimizer keeps one."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import keras


@contextmanager
def averaged_weights(model: keras.Model) -> Iterator[None]:
    """Within the block the model holds its averaged weights; afterwards, bit for bit, its own.

    Without `use_ema`, or before the first update, nothing happens. Batch normalisation's moving
    statistics are not averaged. keras.callbacks.SwapEMAWeights does not serve: it swaps by adding
    and subtracting, which rounds, so that training would depend on how often it was validated.
    """
    optimizer = getattr(model.optimizer, "inner_optimizer", model.optimizer)
    if not optimizer.use_ema or int(optimizer.iterations) == 0:
        yield
        return
    variables = model.trainable_variables
    own = [keras.ops.convert_to_numpy(variable) for variable in variables]
    optimizer.finalize_variable_values(variables)
    try:
        yield
    finally:
        for variable, value in zip(variables, own, strict=True):
            variable.assign(value)
