"""An early end for a training that is worse than others."""

from __future__ import annotations

from collections.abc import Callable

import keras


class Pruning(keras.callbacks.Callback):  # type: ignore[misc]  # Keras is untyped
    """Ends a training by a decision taken after every epoch.

    The model is then that of an early stop. Place it after the checkpoint, so that the epoch is
    saved before the decision. The decision is also called for an epoch that is the last one
    anyway, and then changes nothing.

    Args:
        monitor: name in the epoch's logs.
        should_prune: (epoch from 0, value of the monitor, whether the training would continue) ->
            whether to end it.

    Example:
        >>> import numpy as np
        >>> model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
        >>> model.compile("sgd", "mse")
        >>> pruning = Pruning("loss", lambda epoch, loss, continues: epoch == 1)
        >>> x, y = np.ones((4, 2)), np.ones((4, 1))
        >>> history = model.fit(x, y, epochs=9, callbacks=[pruning], verbose=0)
        >>> history.epoch
        [0, 1]
    """

    def __init__(self, monitor: str, should_prune: Callable[[int, float, bool], bool]) -> None:
        super().__init__()
        self.monitor = monitor
        self.should_prune = should_prune

    def on_epoch_end(self, epoch: int, logs: dict[str, float]) -> None:
        continues = not self.model.stop_training and epoch + 1 < self.params["epochs"]
        if self.should_prune(epoch, float(logs[self.monitor]), continues):
            self.model.stop_training = True
