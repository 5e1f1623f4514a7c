"""Resumable training: a run killed at any moment goes on as if it had not been."""

from __future__ import annotations

import csv
import io
import json
import zipfile
from collections.abc import Sequence
from pathlib import Path

import keras
import numpy as np

from cbir_tf.errors import UserError, nearest
from cbir_tf.storage.files import replacing, write_text
from cbir_tf.training.callbacks.averaging import averaged_weights
from cbir_tf.training.callbacks.early_stopping import best_epoch, should_stop


class Checkpoint(keras.callbacks.Callback):
    """Saves the whole state of training after every epoch, keeps the best weights, stops early.

    The folder holds last.npz, from which training resumes bit for bit: every variable of the
    model (the seeds of its dropout layers too) and of the optimizer, and the history; and
    best-<epoch>.npz, the model's variables after its best epoch, averaged where the optimizer
    averages them. Each file appears whole or not at all, and the best one first, so last.npz
    never speaks of one that is not there. Place it last in the list of callbacks; the order of
    batches and augmentation, being the data's, is not kept here.

    Args:
        folder: Made when missing.
        monitor: Name in the epoch's logs; lower is better if it ends in "loss", else higher.
        patience: Epochs without improvement after which to stop; None: never.
        min_delta: Smallest change that counts as improvement.

    Attributes:
        history: A row for every epoch: "epoch", from 1, and the epoch's logs.

    Raises:
        UserError: at the end of an epoch, when the monitor is not in the logs, or the folder
            cannot be written to or is full; the checkpoint before it stays.

    Example:
        checkpoint = Checkpoint(folder, monitor="val_recall@1", patience=3)
        first_epoch = checkpoint.restore(model)
        if not checkpoint.stopped:
            model.fit(batches, initial_epoch=first_epoch, epochs=20, callbacks=[checkpoint])
        checkpoint.load_best(model)
    """

    def __init__(
        self,
        folder: Path,
        monitor: str = "val_recall@1",
        patience: int | None = None,
        min_delta: float = 0.0,
    ) -> None:
        super().__init__()
        self.folder = Path(folder)
        self.monitor = monitor
        self.patience = patience
        self.min_delta = min_delta
        self.history: list[dict[str, float]] = []

    @property
    def best_epoch(self) -> int | None:
        """Number of the best epoch so far, from 1."""
        return best_epoch(self.history, self.monitor, self.min_delta)

    @property
    def stopped(self) -> bool:
        """Whether early stopping has ended the training."""
        return should_stop(self.history, self.monitor, self.patience, self.min_delta)

    def restore(self, model: keras.Model) -> int:
        """Put a compiled model back where the last checkpoint left it.

        Returns:
            Number of epochs done, which is `initial_epoch` for `fit`; 0 without a checkpoint.

        Raises:
            UserError: the checkpoint is damaged, or of another model or optimizer.
        """
        # What a kill in the middle of saving left behind.
        for leftover in self.folder.glob(".*.npz"):
            leftover.unlink()
        if not self._last.is_file():
            return 0
        history = _load(self._last, _state(model))
        self.history = json.loads(history)
        return len(self.history)

    def load_best(self, model: keras.Model) -> int:
        """Give the model the weights of the best epoch, and return that epoch's number, from 1.

        Raises:
            UserError: no epoch was any good, or the file is damaged, gone or of another model.
        """
        best = self.best_epoch
        if best is None:
            raise UserError(
                f"{self.folder}: no epoch has a finite {self.monitor}; lower the learning rate, "
                "or look at the validation split"
            )
        _load(self._best(best), model.variables)
        return best

    def write_history(self, path: Path) -> None:
        """Write the history as CSV, a row an epoch.

        Raises:
            UserError: the place cannot be written to, or is full.
        """
        columns = dict.fromkeys(name for row in self.history for name in row)
        text = io.StringIO()
        writer = csv.DictWriter(text, list(columns), lineterminator="\n")
        writer.writeheader()
        writer.writerows(self.history)
        write_text(path, text.getvalue())

    def on_epoch_end(self, epoch: int, logs: dict[str, float]) -> None:
        if self.monitor not in logs:
            raise UserError(f"no {self.monitor!r} to monitor: {nearest(self.monitor, logs)}")
        row = {"epoch": epoch + 1} | {name: float(value) for name, value in logs.items()}
        self.history.append(row)
        best = self.best_epoch
        if best == row["epoch"]:
            with averaged_weights(self.model):
                _save(self._best(best), self.model.variables)
        _save(self._last, _state(self.model), json.dumps(self.history))
        for superseded in self.folder.glob("best-*.npz"):
            if best is None or superseded != self._best(best):
                superseded.unlink()
        if self.stopped:
            self.model.stop_training = True

    @property
    def _last(self) -> Path:
        return self.folder / "last.npz"

    def _best(self, epoch: int) -> Path:
        return self.folder / f"best-{epoch}.npz"


def _state(model: keras.Model) -> list[keras.Variable]:
    """Everything that training changes, in an order that only the architecture decides.

    Keras's own weight files leave out the seeds of dropout layers.
    """
    if not model.optimizer.built:
        model.optimizer.build(model.trainable_variables)
    return [*model.variables, *model.optimizer.variables]


def _save(path: Path, variables: Sequence[keras.Variable], note: str = "") -> None:
    arrays = {
        str(position): keras.ops.convert_to_numpy(variable)
        for position, variable in enumerate(variables)
    }
    with replacing(path) as temporary:
        np.savez(temporary, note=np.array(note), **arrays)


def _load(path: Path, variables: Sequence[keras.Variable]) -> str:
    """Fill the variables from a file, all or none, and return the note saved with them."""
    try:
        with np.load(path, allow_pickle=False) as stored:
            arrays = [stored[str(position)] for position in range(len(stored.files) - 1)]
            note = str(stored["note"])
    except FileNotFoundError:
        raise UserError(f"{path}: no such checkpoint; train again with --restart") from None
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        raise UserError(f"{path}: damaged ({error}); train again with --restart") from error
    if [array.shape for array in arrays] != [tuple(variable.shape) for variable in variables]:
        raise UserError(
            f"{path}: a checkpoint of another model or optimizer; go back to the configuration "
            "it was made with, or train again with --restart"
        )
    for variable, array in zip(variables, arrays, strict=True):
        variable.assign(array)
    return note
