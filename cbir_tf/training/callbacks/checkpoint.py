"""Resumable training: killed at any moment, it resumes as if it had not been interrupted."""

from __future__ import annotations

import csv
import io
import json
import math
import zipfile
from collections.abc import Sequence
from pathlib import Path

import keras
import numpy as np

from cbir_tf.errors import UserError, nearest
from cbir_tf.storage.files import replacing, write_text
from cbir_tf.training.callbacks.averaging import averaged_weights
from cbir_tf.training.callbacks.early_stopping import best_epoch, should_stop


class Checkpoint(keras.callbacks.Callback):  # type: ignore[misc]  # Keras is untyped
    """Saves the whole state of training after every epoch, keeps the best weights, stops early.

    The folder holds last.npz, from which training resumes bit for bit: every variable of the
    model (the seeds of its dropout layers too) and of the optimizer, and the history; and
    best-<epoch>.npz, the model's variables after its best epoch, averaged where the optimizer
    averages them. Each file is written whole or not at all, and the best one first, so last.npz
    never refers to a missing one. Place it last in the list of callbacks, as it saves their logs.
    The order of batches and the augmentation are not saved here: they follow from the data's seed.

    Args:
        folder: made when missing.
        monitor: name in the epoch's logs by which epochs are compared; see `best_epoch`.
        patience: epochs without improvement after which to stop; None: never.
        min_delta: smallest change that counts as improvement.

    Attributes:
        history: a row for every epoch: "epoch", from 1, and the epoch's logs.

    Raises:
        UserError: at the end of an epoch, when the monitor is not in the logs, or the folder
            cannot be written to or is full; the checkpoint before it stays.

    Example:
        >>> import tempfile
        >>> model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
        >>> model.compile("sgd", "mse")
        >>> x, y = np.ones((4, 2)), np.ones((4, 1))
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     checkpoint = Checkpoint(Path(folder), monitor="loss", patience=3)
        ...     epoch = checkpoint.restore(model)
        ...     history = model.fit(
        ...         x, y, initial_epoch=epoch, epochs=2, callbacks=[checkpoint], verbose=0
        ...     )
        ...     checkpoint.load_best(model)
        2
    """

    def __init__(
        self,
        folder: Path,
        monitor: str = "val_map_at_r",
        patience: int | None = None,
        min_delta: float = 0.0,
    ) -> None:
        super().__init__()
        self.folder = Path(folder)
        self.monitor = monitor
        self.patience = patience
        self.min_delta = min_delta
        self.history: list[dict[str, float]] = []
        self._not_kept: set[float] = set()

    @property
    def best_epoch(self) -> int | None:
        """Number of the best epoch so far, from 1."""
        return best_epoch(self._candidates, self.monitor, self.min_delta)

    @property
    def stopped(self) -> bool:
        """Whether early stopping has ended the training."""
        return should_stop(self._candidates, self.monitor, self.patience, self.min_delta)

    def restore(self, model: keras.Model) -> int:
        """Give a compiled model, and its optimizer, the state of the last checkpoint.

        Returns:
            Number of finished epochs, the `initial_epoch` of `fit`; 0 without a checkpoint.

        Raises:
            UserError: the checkpoint is damaged, or belongs to another model or optimizer.
        """
        # Left behind by a kill in the middle of saving.
        for leftover in self.folder.glob(".*.npz"):
            leftover.unlink()
        if not self._last.is_file():
            return 0
        history = _load(self._last, _state(model))
        self.history = json.loads(history)
        self._keep_to_saved()
        return len(self.history)

    def load_best(self, model: keras.Model) -> int:
        """Give the model the weights of the best epoch, and return that epoch's number, from 1.

        Raises:
            UserError: no epoch has a finite monitor, or the file is damaged, missing or of another
                model.
        """
        best = self.best_epoch
        if best is None:
            raise UserError(
                f"{self.folder}: no epoch has a finite {self.monitor}; lower the learning rate, "
                "or check the validation split"
            )
        _load(self._best(best), model.variables)
        return best

    def write_history(self, path: Path) -> None:
        """Write the history as CSV, a row an epoch.

        Raises:
            UserError: the path cannot be written to, or the disk is full.
        """
        columns = dict.fromkeys(name for row in self.history for name in row)
        text = io.StringIO()
        writer = csv.DictWriter(text, list(columns), lineterminator="\n")
        writer.writeheader()
        writer.writerows(self.history)
        write_text(path, text.getvalue())

    def on_epoch_end(self, epoch: int, logs: dict[str, float]) -> None:
        if self.monitor not in logs:
            raise UserError(f"no {self.monitor!r} to monitor; {nearest(self.monitor, logs)}")
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
    def _candidates(self) -> list[dict[str, float]]:
        """The history, in which an epoch whose weights are not there is never the best."""
        return [
            row | {self.monitor: math.nan} if row["epoch"] in self._not_kept else row
            for row in self.history
        ]

    def _keep_to_saved(self) -> None:
        """Compare with the epoch whose weights are there alone, if another would be the best.

        Earlier versions kept the first of several epochs with the same monitor.
        """
        best = self.best_epoch
        if best is None or self._best(best).is_file():
            return
        saved = [epoch for epoch in range(1, best) if self._best(epoch).is_file()]
        if saved:
            self._not_kept = {row["epoch"] for row in self.history} - {saved[-1]}

    @property
    def _last(self) -> Path:
        return self.folder / "last.npz"

    def _best(self, epoch: int) -> Path:
        return self.folder / f"best-{epoch}.npz"


def _state(model: keras.Model) -> list[keras.Variable]:
    """Every variable that training changes, in an order that depends on the architecture alone.

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
        raise UserError(f"{path}: was not found; run cbir train with --restart") from None
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        raise UserError(f"{path}: is damaged ({error}); run cbir train with --restart") from error
    if [array.shape for array in arrays] != [tuple(variable.shape) for variable in variables]:
        raise UserError(
            f"{path}: is a checkpoint of another model or optimizer; use the configuration it was "
            "made with, or run cbir train with --restart"
        )
    for variable, array in zip(variables, arrays, strict=True):
        variable.assign(array)
    return note
