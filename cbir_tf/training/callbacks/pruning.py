"""An early end for a training that others have left behind."""

from __future__ import annotations

from collections.abc import Callable

import keras


class Pruning(keras.callbacks.Callback):
    """Asks after every epoch whether the training is hopeless, and ends it if so.

    The model then is that of an early stop. Place it after the checkpoint: what is asked about is
    saved already. The last epoch, and one that ends the training anyway, are told of, but the
    answer changes nothing.

    Args:
        monitor: Name in the epoch's logs.
        hopeless: (epoch from 0, value of the monitor, whether the training would go on) -> whether
            to end it.
    """

    def __init__(self, monitor: str, hopeless: Callable[[int, float, bool], bool]) -> None:
        super().__init__()
        self.monitor = monitor
        self.hopeless = hopeless

    def on_epoch_end(self, epoch: int, logs: dict[str, float]) -> None:
        goes_on = not self.model.stop_training and epoch + 1 < self.params["epochs"]
        if self.hopeless(epoch, float(logs[self.monitor]), goes_on):
            self.model.stop_training = True
