"""Compare every exported format with Keras on images of the run, and measure its time."""

from __future__ import annotations

import shutil
import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from cbir_tf.config.data import Data
from cbir_tf.data.batches import inference_batches
from cbir_tf.errors import UserError
from cbir_tf.evaluation.table import markdown
from cbir_tf.features.runtime import Encoder, predict
from cbir_tf.models import load_embedder
from cbir_tf.progress import logger
from cbir_tf.publishing.export import Source, export
from cbir_tf.retrieval.extraction import split_images
from cbir_tf.run import Run
from cbir_tf.types import ImageSet

CALIBRATION = 128
CHECKED = 256
REPEATS = 30
LEAST_COSINE = {"float32": 0.9999, "int8": 0.95}
"""Smallest cosine to Keras' embedding: float32 for every image, int8 in the mean."""
SAME_NEAREST = 0.99
"""Share of the images from which on the neighbours count as those of Keras."""


@dataclass(frozen=True)
class Exported:
    """A format, and how it compares with Keras.

    Attributes:
        format: its name.
        file: name of the file or folder; empty for Keras itself.
        kept: whether the file was kept, its embeddings being near Keras'; that of int8 may be kept
            and find others (`same_nearest`).
        megabytes: of the file or all in the folder.
        milliseconds: for one image at a time, the median.
        largest_difference: of any number of any embedding.
        cosine: mean cosine similarity of embeddings and Keras'.
        least_cosine: the smallest.
        same_nearest: share of the images whose nearest other one is the same as by Keras.
    """

    format: str
    file: str
    kept: bool
    megabytes: float
    milliseconds: float
    largest_difference: float
    cosine: float
    least_cosine: float
    same_nearest: float

    @property
    def neighbours(self) -> str:
        """Whose nearest images it finds, in words."""
        if not self.kept:
            return "deleted"
        return "as Keras" if self.same_nearest >= SAME_NEAREST else "others"


def export_run(run: Run, formats: Sequence[str], to: Path) -> list[Exported]:
    """Export a trained run: training images set the int8 ranges, validation images are compared.

    Raises:
        UserError: as `export_all`, or the run has descriptors.
    """
    if run.config.descriptors:
        raise UserError(f"{run.folder}: has descriptors, not a model to export")
    calibration, checked = split_images(run, "train"), split_images(run, "validation")
    return export_all(run, calibration, checked, formats, to)


def export_all(
    run: Run, calibration: ImageSet, checked: ImageSet, formats: Sequence[str], to: Path
) -> list[Exported]:
    """Export the embedder of a run; a format that does not agree with Keras is deleted.

    Args:
        run: trained.
        calibration: images by which the ranges of int8 are chosen.
        checked: images whose embeddings are compared.
        formats: keys of `cbir_tf.publishing.export.FORMATS`.
        to: folder for the exports.

    Returns:
        Keras itself, then each format.

    Raises:
        UserError: a package is missing, or no image could be read.
    """
    embedder = load_embedder(run.model)
    source = Source(run.model, embedder, _pixels(calibration, run.config.data, CALIBRATION))
    pixels = _pixels(checked, run.config.data, CHECKED)
    keras_encoder = partial(predict, embedder)
    reference = keras_encoder(pixels)
    rows = [_compare("keras", run.model, keras_encoder, pixels, reference)]
    for name in formats:
        logger.info("exporting %s", name)
        path, encoder = export(source, name, to)
        row = _compare(name, path, encoder, pixels, reference)
        rows.append(row)
        if not row.kept:
            logger.warning("%s: deleted, as its embeddings differ from those of Keras", path)
            shutil.rmtree(path) if path.is_dir() else path.unlink()
        elif row.neighbours == "others":
            logger.warning(
                "%s: for %.0f %% of the images the nearest other one is not that of Keras; measure "
                "it before you use it, and encode gallery and queries by the same file",
                path,
                100 * (1 - row.same_nearest),
            )
    return rows


def _pixels(images: ImageSet, data: Data, count: int) -> np.ndarray:
    """(N, H, W, 3) uint8 of at most so many images, spread over the set."""
    chosen = np.unique(np.linspace(0, len(images) - 1, count).astype(int))
    batches = [batch.numpy() for batch, _ in inference_batches(images.take(chosen), data)]
    if not batches:
        raise UserError("no image of the run could be read; check data.path")
    return np.concatenate(batches)


def _compare(
    name: str, path: Path, encoder: Encoder, pixels: np.ndarray, reference: np.ndarray
) -> Exported:
    vectors = encoder(pixels)
    cosines = (_unit(vectors) * _unit(reference)).sum(axis=1)
    # NaN is not above anything, so that it is not kept.
    if name.endswith("int8"):
        kept = cosines.mean() >= LEAST_COSINE["int8"]
    else:
        kept = cosines.min() >= LEAST_COSINE["float32"]
    return Exported(
        format=name,
        file="" if name == "keras" else path.name,
        kept=bool(kept),
        megabytes=_bytes(path) / 1e6,
        milliseconds=_milliseconds(encoder, pixels),
        largest_difference=float(np.abs(vectors - reference).max()),
        cosine=float(cosines.mean()),
        least_cosine=float(cosines.min()),
        same_nearest=float(np.mean(_nearest(vectors) == _nearest(reference))),
    )


def _unit(vectors: np.ndarray) -> np.ndarray:
    unit: np.ndarray = vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
    return unit


def _nearest(vectors: np.ndarray) -> np.ndarray:
    """(N,) positions of the other vector of the largest cosine."""
    similarity = _unit(vectors) @ _unit(vectors).T
    np.fill_diagonal(similarity, -np.inf)
    nearest: np.ndarray = similarity.argmax(axis=1)
    return nearest


def _milliseconds(encoder: Encoder, pixels: np.ndarray) -> float:
    encoder(pixels[:1])
    seconds = []
    for number in range(REPEATS):
        image = pixels[[number % len(pixels)]]
        started = time.perf_counter()
        encoder(image)
        seconds.append(time.perf_counter() - started)
    return 1000 * statistics.median(seconds)


def _bytes(path: Path) -> int:
    files = path.rglob("*") if path.is_dir() else [path]
    return sum(each.stat().st_size for each in files if each.is_file())


def format_exports(rows: Sequence[Exported]) -> str:
    """The comparison as a Markdown table."""
    header = ["format", "MB", "ms an image", "largest difference", "cosine", "least cosine"]
    cells = [
        [
            each.format,
            f"{each.megabytes:.2f}",
            f"{each.milliseconds:.2f}",
            f"{each.largest_difference:.1e}",
            f"{each.cosine:.5f}",
            f"{each.least_cosine:.5f}",
            f"{each.same_nearest:.1%}",
            each.neighbours,
        ]
        for each in rows
    ]
    return markdown([*header, "same nearest", "neighbours"], cells)
