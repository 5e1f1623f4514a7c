"""The moving average of the weights, where the optimizer keeps one."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import keras


@contextmanager
def averaged_weights(model: keras.Model) -> Iterator[None]:
    """Give the model its averaged weights within the block; put its own back bit for bit after it.

    Without `use_ema` in the optimizer, or before the first update, nothing changes. The moving
    statistics of batch normalisation are not averaged. keras.callbacks.SwapEMAWeights swaps by
    adding and subtracting, which rounds: training would depend on how often it is validated.

    Args:
        model: compiled.

    Example:
        >>> import numpy as np
        >>> model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
        >>> model.compile(keras.optimizers.SGD(0.1, use_ema=True), "mse")
        >>> loss = model.train_on_batch(np.ones((4, 2)), np.ones((4, 1)))
        >>> with averaged_weights(model):
        ...     averaged = model.predict_on_batch(np.ones((1, 2)))
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
