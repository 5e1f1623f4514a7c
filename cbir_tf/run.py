"""A run: the folder that holds everything one training made."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

from cbir_tf.config import Config
from cbir_tf.errors import UserError, nearest
from cbir_tf.storage.remote import local


@dataclass(frozen=True)
class Run:
    """A folder with everything one run made, and the configuration that made it."""

    folder: Path
    config: Config

    config_file = property(lambda self: self.folder / "config.yaml")
    images = property(lambda self: self.folder / "images.csv")
    checkpoints = property(lambda self: self.folder / "checkpoints")
    model = property(
        lambda self: self.folder / ("model.npz" if self.config.descriptors else "model.keras")
    )
    classifier = property(lambda self: self.folder / "classifier.keras")
    autoencoder = property(lambda self: self.folder / "autoencoder.keras")
    history = property(lambda self: self.folder / "history.csv")
    training = property(lambda self: self.folder / "training.json")
    features = property(lambda self: self.folder / "features.db")
    index = property(lambda self: self.folder / "index")
    added = property(lambda self: self.folder / "added")
    metrics = property(lambda self: self.folder / "metrics.json")
    classification = property(lambda self: self.folder / "classification.json")
    no_match = property(lambda self: self.folder / "no_match.json")
    plots = property(lambda self: self.folder / "plots")
    logs = property(lambda self: self.folder / "logs")

    @classmethod
    def at(cls, folder: Path, config: Config, replace: bool = False) -> Run:
        """The run of a configuration in a folder, which must be new, empty or its own.

        Args:
            folder: where the run is, or is to be.
            config: of the run.
            replace: let the folder hold a run of another configuration.

        Raises:
            UserError: the folder holds something else, or a run of another configuration.
        """
        is_run = (folder / "config.yaml").is_file()
        if not is_run and folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
            raise UserError(f"{folder}: exists and is no run; choose another --run folder")
        if is_run and not replace:
            differences = config.differences(cls.open(folder).config)
            if differences:
                raise UserError(
                    f"{folder}: holds a run of another configuration ({differences[0]}); choose "
                    "another --run folder, or --restart to replace it"
                )
        return cls(folder, config)

    @classmethod
    def open(cls, folder: str | Path) -> Run:
        """The run in a folder.

        Raises:
            UserError: there is none, or its configuration cannot be read.
        """
        folder = local(folder, missing_ok=True)
        if not (folder / "config.yaml").is_file():
            others = [str(each.parent) for each in sorted(folder.parent.glob("*/config.yaml"))]
            hint = nearest(str(folder), others) if others else "train one first with train.py"
            raise UserError(f"{folder}: no run there; {hint}")
        return cls(folder, Config.load(folder / "config.yaml"))

    @property
    def trained(self) -> bool:
        """Whether training came to its end."""
        return bool(self.model.is_file())

    def clear(self) -> None:
        """Delete what the run has made, and nothing else that lies in its folder."""
        # The configuration goes last: while it is there, the folder is known as a run.
        for path in (
            *(self.model.with_suffix(suffix) for suffix in (".keras", ".onnx", ".npz")),
            self.classifier,
            self.autoencoder,
            self.images,
            self.history,
            self.training,
            self.features,
            *self.folder.glob("features.db-*"),
            self.metrics,
            self.classification,
            self.no_match,
            self.config_file,
        ):
            path.unlink(missing_ok=True)
        for folder in (self.checkpoints, self.index, self.plots, self.logs):
            shutil.rmtree(folder, ignore_errors=True)
