"""Progress of `fit` on standard error, where Keras's own bar goes to standard output."""

from __future__ import annotations

import keras

from cbir_tf.progress import logger, progress


class EpochProgress(keras.callbacks.Callback):
    """One bar over all steps, with rate and time left, and a line of figures for every epoch.

    Place it after whatever adds to the logs.

    Args:
        epochs: Epochs at most.
        steps_per_epoch: Updates in one epoch.
        first_epoch: Epochs done before.
    """

    def __init__(self, epochs: int, steps_per_epoch: int, first_epoch: int = 0) -> None:
        super().__init__()
        self.epochs = epochs
        self.bar = progress(
            total=epochs * steps_per_epoch,
            initial=first_epoch * steps_per_epoch,
            description="train",
            unit="steps",
        )

    def on_train_batch_end(self, batch: int, logs: dict[str, float] | None = None) -> None:
        self.bar.update()

    def on_epoch_end(self, epoch: int, logs: dict[str, float]) -> None:
        figures = "  ".join(f"{name} {value:.4g}" for name, value in logs.items())
        logger.info("epoch %d/%d  %s", epoch + 1, self.epochs, figures)
