"""Fit classical features to the training images: vocabularies and the rarity of their words."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from cbir_tf.config import Config
from cbir_tf.config.descriptors import VisualWords
from cbir_tf.data.batches import inference_batches
from cbir_tf.features.descriptors import Descriptors
from cbir_tf.features.pixel_descriptors import gray
from cbir_tf.features.visual_words import fit_vocabulary
from cbir_tf.progress import progress
from cbir_tf.types import ImageSet


def fit_descriptors(config: Config, training: ImageSet) -> tuple[Descriptors, list[dict[str, Any]]]:
    """The descriptors of a configuration, fitted to the training images.

    Args:
        config: the sections descriptors and data, and the seed, are used.
        training: the training images.

    Returns:
        The encoder, and a report for each descriptor: name, dimensions and, for visual words, their
        number and the Davies-Bouldin index of each size tried.

    Raises:
        UserError: as `fit_vocabulary`.
    """

    def images(purpose: str) -> Iterator[np.ndarray]:
        with progress(total=len(training), description=purpose) as bar:
            for pixels, _ in inference_batches(training, config.data):
                yield from gray(pixels.numpy())
                bar.update(len(pixels))

    vocabularies, reports = {}, []
    for place, each in enumerate(config.descriptors):
        report: dict[str, Any] = {"name": each.name}
        if isinstance(each, VisualWords):
            vocabulary, scores = fit_vocabulary(each, images, len(training), config.seed)
            vocabularies[place] = vocabulary
            report |= {"words": len(vocabulary.words), "davies_bouldin": scores}
        reports.append(report)
    descriptors = Descriptors(config.descriptors, vocabularies)
    for report, size in zip(reports, descriptors.sizes, strict=True):
        report["dimensions"] = size
    return descriptors, reports
