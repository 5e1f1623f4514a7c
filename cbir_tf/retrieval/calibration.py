"""When the nearest image is no match: a threshold for a false-match rate that the user names.

An out-of-gallery query is one for which the gallery holds nothing of its kind. How near such
queries come is measured on validation images: each is compared with the images of every other
class, as if its own class were not there. The threshold is the distance within which the wanted
share of them finds something; being a rank among n + 1 exchangeable values, it holds for the next
out-of-gallery query too, not just on average over those measured (Vovk et al. 2005, Algorithmic
Learning in a Random World, conformal prediction).
"""

from __future__ import annotations

import json
import math
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from cbir_tf.config.arguments import real_number
from cbir_tf.errors import UserError
from cbir_tf.parallel import blocks
from cbir_tf.search.distances import find_metric, pairwise
from cbir_tf.search.index import check_dimension
from cbir_tf.storage.files import read_json, write_text
from cbir_tf.types import UNLABELLED, Embeddings

BLOCK_PAIRS = 2**23
_RENAMED = {"strangers": "out_of_gallery", "projection": "whitening"}
"""Keys of files that version 0.1 wrote."""


@dataclass(frozen=True)
class Calibration:
    """A calibrated threshold.

    Attributes:
        false_match_rate: share of out-of-gallery queries that may find something within it.
        threshold: distance below which the nearest image is a match.
        metric: of the distances.
        model: encoder fingerprint of the vectors that were measured.
        gallery: number of images that the queries were compared with.
        out_of_gallery: distance of each query to the nearest image of another class, ascending.
        whitening: digest of the whitening of those vectors; empty for none.
    """

    false_match_rate: float
    threshold: float
    metric: str
    model: str
    gallery: int
    out_of_gallery: tuple[float, ...]
    whitening: str = ""

    @classmethod
    def measure(
        cls,
        queries: Embeddings,
        gallery: Embeddings,
        metric: str,
        rate: float,
        model: str = "",
        whitening: str = "",
    ) -> Calibration:
        """Measure how near out-of-gallery queries come.

        Args:
            queries: labelled embeddings, not used in training.
            gallery: labelled embeddings; those of a query's own class are left out for it.
            metric: cosine, euclidean, manhattan or minkowski-P.
            rate: wanted false-match rate, above 0 and below 1.
            model: encoder fingerprint of the vectors.
            whitening: digest of the whitening they went through.

        Raises:
            UserError: an impossible rate, one too small for so few queries, or too few classes.

        Example:
            >>> images = Embeddings(list("abcd"), [[0], [1], [5], [9]], [0, 0, 1, 1])
            >>> Calibration.measure(images, images, "euclidean", rate=0.4).threshold
            4.0
        """
        rate = real_number(rate, "false-match rate")
        if not 0 < rate < 1:
            raise UserError(
                f"false-match rate {rate}: must be above 0 and below 1, as in 0.05; correct it"
            )
        nearest = np.sort(nearest_of_other_classes(queries, gallery, metric))
        rank = math.floor(rate * (len(nearest) + 1))
        if rank < 1:
            raise UserError(
                f"false-match rate {rate:g}: {len(nearest)} validation images can only measure "
                f"rates from {1 / (len(nearest) + 1):.2g} up; ask for more, or add images"
            )
        threshold = float(nearest[rank - 1])
        distances = tuple(map(float, nearest))
        return cls(rate, threshold, metric, model, len(gallery), distances, whitening)

    def matches(self, distances: np.ndarray) -> np.ndarray:
        """(Q,) bool, whether nearest images at these (Q,) distances are matches."""
        return np.asarray(distances) < self.threshold

    def false_match_rate_at(self, distance: float) -> float:
        """Share of out-of-gallery queries, at most, that find something as near as this."""
        nearer = int(np.searchsorted(self.out_of_gallery, distance, side="right"))
        return (nearer + 1) / (len(self.out_of_gallery) + 1)

    def verdict(self, distance: float) -> dict[str, Any] | None:
        """Of the nearest image: found, threshold, false_match_rate; None where there is none."""
        if math.isinf(distance):
            return None
        return {
            "found": distance < self.threshold,
            "threshold": self.threshold,
            "false_match_rate": self.false_match_rate_at(distance),
        }

    def save(self, path: Path) -> None:
        """Write as JSON.

        Raises:
            UserError: the file cannot be written.
        """
        write_text(path, json.dumps(asdict(self)))

    @classmethod
    def load(cls, path: Path) -> Calibration:
        """Read what `save` wrote.

        Raises:
            UserError: missing or damaged.
        """
        try:
            values = {_RENAMED.get(key, key): value for key, value in read_json(path).items()}
            values["out_of_gallery"] = tuple(map(float, values["out_of_gallery"]))
            return cls(**values)
        except (TypeError, KeyError, ValueError, AttributeError):
            raise UserError(f"{path}: damaged; run cbir calibrate again") from None


def nearest_of_other_classes(queries: Embeddings, gallery: Embeddings, metric: str) -> np.ndarray:
    """Distance of each query to the nearest image of another class.

    Args:
        queries: Q labelled embeddings.
        gallery: labelled embeddings; unlabelled ones are left out, as they may be of any class.
        metric: cosine, euclidean, manhattan or minkowski-P.

    Returns:
        (Q,) float32.

    Raises:
        UserError: no queries, an unlabelled one, or one for which the gallery has no other class.
    """
    gallery = gallery.take(gallery.labels != UNLABELLED)
    if not len(queries) or (queries.labels == UNLABELLED).any():
        raise UserError("calibration needs labelled validation images; label some")
    if len(gallery):
        check_dimension(queries.vectors, gallery.vectors.shape[1])
    arithmetic = find_metric(metric)
    prepared = arithmetic.prepare(gallery.vectors)
    nearest = np.empty(len(queries), dtype=np.float32)
    for rows in blocks(len(queries), len(gallery), BLOCK_PAIRS):
        distances = pairwise(arithmetic, arithmetic.prepare(queries.vectors[rows]), prepared)
        distances[queries.labels[rows, None] == gallery.labels] = np.inf
        nearest[rows] = distances.min(axis=1, initial=np.inf)
    if np.isinf(nearest).any():
        raise UserError("calibration needs images of at least two classes in the gallery; add some")
    return nearest
