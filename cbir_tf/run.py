"""A run: the folder that holds everything one training made."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

from cbir_tf.config import Config
from cbir_tf.config.fixed import edited_key
from cbir_tf.errors import UserError, nearest
from cbir_tf.storage.files import read_json
from cbir_tf.storage.remote import local


@dataclass(frozen=True)
class Run:
    """A folder with everything one training made, and the configuration that made it.

    Attributes:
        folder: of the run; the properties are the paths of its files, present or not.
        config: as resolved, every key with its value.

    Example:
        >>> config = Config.check({"name": "digits", "data": {"source": "digits"}})
        >>> run = Run(Path("runs/digits"), config)
        >>> run.history.as_posix(), run.trained
        ('runs/digits/history.csv', False)
    """

    folder: Path
    config: Config

    @property
    def config_file(self) -> Path:
        """config.yaml: the configuration, every key with its value."""
        return self.folder / "config.yaml"

    @property
    def images(self) -> Path:
        """images.csv: id, split, label and findings of the inspection, a row for each image."""
        return self.folder / "images.csv"

    @property
    def checkpoints(self) -> Path:
        """checkpoints: what an interrupted training resumes from; gone once it has ended."""
        return self.folder / "checkpoints"

    @property
    def model(self) -> Path:
        """model.keras, the embedder with its preprocessing; of descriptors model.npz."""
        return self.folder / ("model.npz" if self.config.descriptors else "model.keras")

    @property
    def classifier(self) -> Path:
        """classifier.keras: from images to class probabilities, of loss: cross_entropy."""
        return self.folder / "classifier.keras"

    @property
    def autoencoder(self) -> Path:
        """autoencoder.keras: from images to images, of loss: reconstruction."""
        return self.folder / "autoencoder.keras"

    @property
    def history(self) -> Path:
        """history.csv: loss, validation metrics and learning rate, a row for each epoch."""
        return self.folder / "history.csv"

    @property
    def training(self) -> Path:
        """training.json: best epoch and its metrics, the keys that are fixed since, class names,
        damaged images, duplicates."""
        return self.folder / "training.json"

    @property
    def features(self) -> Path:
        """features.db: the feature store: id, embedding, label and metadata of each image."""
        return self.folder / "features.db"

    @property
    def index(self) -> Path:
        """index: the search index over the feature store."""
        return self.folder / "index"

    @property
    def added(self) -> Path:
        """added: images added to the gallery through the service."""
        return self.folder / "added"

    @property
    def metrics(self) -> Path:
        """metrics.json: retrieval metrics with their intervals, for each pair of splits."""
        return self.folder / "metrics.json"

    @property
    def classification(self) -> Path:
        """classification.json: metrics of the classifiers fitted to the embeddings."""
        return self.folder / "classification.json"

    @property
    def calibration(self) -> Path:
        """no_match.json: the threshold beyond which a query counts as out of the gallery."""
        return self.folder / "no_match.json"

    @property
    def plots(self) -> Path:
        """plots: every picture."""
        return self.folder / "plots"

    @property
    def logs(self) -> Path:
        """logs: TensorBoard logs."""
        return self.folder / "logs"

    @classmethod
    def at(cls, folder: Path, config: Config, replace: bool = False) -> Run:
        """The run of a configuration in a folder that is new, empty, or this run already.

        Nothing is written.

        Args:
            folder: of the run.
            config: of the run.
            replace: accept a folder that holds a run of another configuration.

        Raises:
            UserError: the folder holds other files, or a run of another configuration.
        """
        is_run = (folder / "config.yaml").is_file()
        if not is_run and folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
            raise UserError(f"{folder}: holds files but no run; choose another --run folder")
        if is_run and not replace:
            differences = config.differences(cls.open(folder).config)
            if differences:
                raise UserError(
                    f"{folder}: holds a run of another configuration ({differences[0]}); choose "
                    "another --run folder, or replace it with --restart"
                )
        return cls(folder, config)

    @classmethod
    def open(cls, folder: str | Path | Run) -> Run:
        """The run in a folder, or at an address of S3; a run is returned as it is.

        Raises:
            UserError: there is no run, or its configuration could not be read.
        """
        if isinstance(folder, Run):
            return folder
        folder = local(folder, missing_ok=True)
        if not (folder / "config.yaml").is_file():
            others = [str(each.parent) for each in sorted(folder.parent.glob("*/config.yaml"))]
            hint = nearest(str(folder), others) if others else "train one first with cbir train"
            raise UserError(f"{folder}: no run there; {hint}")
        return cls(folder, Config.load(folder / "config.yaml"))

    @classmethod
    def only(cls, folder: Path = Path("runs")) -> Run:
        """The one run below a folder.

        Raises:
            UserError: there is none, or more than one.
        """
        found = sorted(each.parent for each in folder.glob("*/config.yaml"))
        if len(found) == 1:
            return cls.open(found[0])
        if not found:
            raise UserError(f"no run in {folder}; give --run DIR, or train one with cbir train")
        some = ", ".join(map(str, found[:5])) + ", ..." * (len(found) > 5)
        raise UserError(f"--run: which of {len(found)} runs: {some}? give --run DIR")

    @property
    def trained(self) -> bool:
        """Whether the training has finished: the model is written last."""
        return bool(self.model.is_file())

    def check_unedited(self) -> None:
        """Refuse a trained run whose configuration no longer is what its model was made with.

        Runs of versions up to 0.2.0 keep no record of it, and pass.

        Raises:
            UserError: a fixed key (`cbir_tf.config.fixed`) was edited, or training.json is damaged.
        """
        if not self.training.is_file():
            return
        edited = edited_key(self.config, read_json(self.training).get("fixed_keys", {}))
        if edited is not None:
            raise UserError(
                f"{self.config_file}: {edited}; put it back, or train another run with it"
            )

    def clear(self) -> None:
        """Delete the files of the run, and no other file of its folder."""
        # The configuration is deleted last: the folder is recognised as a run by it.
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
            self.calibration,
            self.config_file,
        ):
            path.unlink(missing_ok=True)
        for folder in (self.checkpoints, self.index, self.plots, self.logs):
            shutil.rmtree(folder, ignore_errors=True)
