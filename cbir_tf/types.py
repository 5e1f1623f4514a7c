"""The values that travel through cbir_tf: ImageSet, Embeddings, Neighbours, Run."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from cbir_tf.config import Config
from cbir_tf.errors import UserError, nearest
from cbir_tf.remote import local

SPLITS = ("train", "validation", "test")
UNLABELLED = -1


def _distinct(ids: np.ndarray, what: str) -> None:
    values, counts = np.unique(ids, return_counts=True)
    if len(values) != len(ids):
        raise ValueError(
            f"{what}: ids must be unique, {str(values[counts > 1][0])!r} is there twice"
        )


def _frozen(values: Sequence | np.ndarray, dtype: type | None = None) -> np.ndarray:
    array = np.asarray(values, dtype=dtype).view()
    array.flags.writeable = False
    return array


@dataclass(frozen=True, eq=False)
class ImageSet:
    """Images by name, not yet decoded.

    Attributes:
        ids: (N,) unique stable strings.
        sources: N paths or encoded image bytes.
        labels: (N,) int64 in 0..C-1, or -1 for unlabelled.
        split: (N,) strings: train, validation, test, or empty where there is none.
        class_names: C names; the label counts into them.
        metadata: N mappings of further columns, text or numbers by name; or none for all.
    """

    ids: np.ndarray
    sources: tuple[Path | bytes, ...]
    labels: np.ndarray
    split: np.ndarray
    class_names: tuple[str, ...]
    metadata: tuple[Mapping[str, str | float], ...] = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, "ids", _frozen(self.ids, np.str_))
        object.__setattr__(self, "sources", tuple(self.sources))
        object.__setattr__(self, "labels", _frozen(self.labels, np.int64))
        object.__setattr__(self, "split", _frozen(self.split, np.str_))
        object.__setattr__(self, "class_names", tuple(self.class_names))
        object.__setattr__(self, "metadata", tuple(self.metadata) or ({},) * len(self.ids))
        lengths = {len(self.ids), len(self.sources), len(self.labels), len(self.split)}
        lengths.add(len(self.metadata))
        if len(lengths) != 1:
            raise ValueError(f"ImageSet: ids, sources, labels, split differ in length: {lengths}")
        _distinct(self.ids, "ImageSet")
        classes = len(self.class_names)
        if len(self) and not (self.labels.min() >= -1 and self.labels.max() < classes):
            raise ValueError(f"ImageSet: labels must be within -1..{classes - 1}")

    def __len__(self) -> int:
        return len(self.ids)

    def take(self, which: np.ndarray) -> ImageSet:
        """The images at these positions, or where this mask is true, in that order."""
        positions = np.arange(len(self))[which]
        return ImageSet(
            self.ids[positions],
            tuple(self.sources[each] for each in positions),
            self.labels[positions],
            self.split[positions],
            self.class_names,
            tuple(self.metadata[each] for each in positions),
        )

    def of_split(self, name: str) -> ImageSet:
        """The images of one split."""
        return self.take(self.split == name)


@dataclass(frozen=True, eq=False)
class Embeddings:
    """Vectors by id.

    Attributes:
        ids: (N,) unique strings.
        vectors: (N, D) float32, finite.
        labels: (N,) int64, or -1 for unlabelled.
    """

    ids: np.ndarray
    vectors: np.ndarray
    labels: np.ndarray

    def __post_init__(self) -> None:
        object.__setattr__(self, "ids", _frozen(self.ids, np.str_))
        object.__setattr__(self, "vectors", _frozen(self.vectors, np.float32))
        object.__setattr__(self, "labels", _frozen(self.labels, np.int64))
        if self.vectors.ndim != 2:
            raise ValueError(f"Embeddings: vectors must be (N, D), got {self.vectors.shape}")
        if not len(self.ids) == len(self.vectors) == len(self.labels):
            raise ValueError("Embeddings: ids, vectors and labels differ in length")
        _distinct(self.ids, "Embeddings")
        if not np.isfinite(self.vectors).all():
            bad = self.ids[~np.isfinite(self.vectors).all(axis=1)][0]
            raise ValueError(f"Embeddings: the vector of {str(bad)!r} is not finite")

    def __len__(self) -> int:
        return len(self.ids)

    def take(self, which: np.ndarray) -> Embeddings:
        """The rows at these positions, or where this mask is true."""
        return Embeddings(self.ids[which], self.vectors[which], self.labels[which])


@dataclass(frozen=True, eq=False)
class Neighbours:
    """What a search found, nearest first.

    Attributes:
        ids: (Q, k) strings; empty string where fewer than k were found (distance infinite).
        distances: (Q, k) float32, each row ascending; equal distances in order of id.
    """

    ids: np.ndarray
    distances: np.ndarray

    def __post_init__(self) -> None:
        object.__setattr__(self, "ids", _frozen(self.ids, np.str_))
        object.__setattr__(self, "distances", _frozen(self.distances, np.float32))
        if self.ids.ndim != 2 or self.ids.shape != self.distances.shape:
            raise ValueError(
                f"Neighbours: ids {self.ids.shape} and distances {self.distances.shape} "
                "must both be (Q, k)"
            )
        nearer, farther = self.distances[:, :-1], self.distances[:, 1:]
        tied = nearer == farther
        in_order = self.ids[:, :-1][tied] <= self.ids[:, 1:][tied]
        if not ((nearer < farther) | tied).all() or not in_order.all():
            raise ValueError("Neighbours: rows must be sorted by (distance, id)")
        by_id = np.sort(self.ids, axis=1)
        if ((by_id[:, :-1] == by_id[:, 1:]) & (by_id[:, 1:] != "")).any():
            raise ValueError("Neighbours: a row names the same id twice")

    def __len__(self) -> int:
        return len(self.ids)

    def first(self, k: int) -> Neighbours:
        """The k nearest of each row, filled up with empty ids where it has fewer."""
        missing = max(0, k - self.ids.shape[1])
        return Neighbours(
            np.pad(self.ids[:, :k], ((0, 0), (0, missing)), constant_values=""),
            np.pad(self.distances[:, :k], ((0, 0), (0, missing)), constant_values=np.inf),
        )


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
