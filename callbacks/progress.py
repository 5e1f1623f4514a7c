"""Progress of `fit` on standard error, where Keras's own bar goes to standard output."""

from __future__ import annotations

import keras

from cbir_tf.progress import logger, progress


class EpochProgress(keras.callbacks.Callback):
    """One bar over all steps, with rate and time left, and a line of figures for every epoch.

    Place it after whatever adds to the logs.

    Args:
        steps_per_epoch: Updates in one epoch.
    """

    def __init__(self, steps_per_epoch: int) -> None:
        super().__init__()
        self.steps_per_epoch = steps_per_epoch

    def on_train_begin(self, logs: dict[str, float] | None = None) -> None:
        self._bar = progress(
            total=self.params["epochs"] * self.steps_per_epoch, description="train", unit="steps"
        )

    def on_epoch_begin(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        if self._bar.n < epoch * self.steps_per_epoch:
            self._bar.initial = self._bar.n = epoch * self.steps_per_epoch

    def on_train_batch_end(self, batch: int, logs: dict[str, float] | None = None) -> None:
        self._bar.update()

    def on_epoch_end(self, epoch: int, logs: dict[str, float]) -> None:
        figures = "  ".join(f"{name} {value:.4g}" for name, value in logs.items())
        logger.info("epoch %d/%d  %s", epoch + 1, self.params["epochs"], figures)

    def on_train_end(self, logs: dict[str, float] | None = None) -> None:
        self._bar.close()
