"""When the nearest image is no match: a threshold for a false-match rate the user names.

A stranger is a query whose like is not in the gallery. How near strangers come is measured on
validation images: each is compared with the images of every other class, as if its own were not
there. The threshold is the distance within which the wanted share of them finds something; being
a rank among n + 1 exchangeable values, it holds for the next stranger too, not just on average of
those measured (Vovk et al. 2005, Algorithmic Learning in a Random World, conformal prediction).
"""

from __future__ import annotations

import json
import math
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from cbir_tf.errors import UserError
from cbir_tf.search.distances import find_metric, pairwise
from cbir_tf.search.index import check_dimension
from cbir_tf.storage.files import read_json, write_text
from cbir_tf.types import UNLABELLED, Embeddings

BLOCK_PAIRS = 2**23


@dataclass(frozen=True)
class NoMatch:
    """A calibrated threshold.

    Attributes:
        false_match_rate: share of strangers that may find something within the threshold.
        threshold: largest distance of a match.
        metric: of the distances.
        model: digest of the model whose vectors were measured.
        gallery: number of images that strangers were compared with.
        strangers: their distances to the nearest image of another class, ascending.
        projection: digest of the projection of those vectors; empty for none.
    """

    false_match_rate: float
    threshold: float
    metric: str
    model: str
    gallery: int
    strangers: tuple[float, ...]
    projection: str = ""

    @classmethod
    def calibrate(
        cls,
        queries: Embeddings,
        gallery: Embeddings,
        metric: str,
        rate: float,
        model: str = "",
        projection: str = "",
    ) -> NoMatch:
        """Measure how near strangers come.

        Args:
            queries: labelled embeddings, not used in training.
            gallery: labelled embeddings; those of a query's own class stand aside for it.
            metric: cosine, euclidean, manhattan or minkowski-P.
            rate: wanted false-match rate, above 0 and below 1.
            model: digest of the model that made the vectors.
            projection: digest of the projection they went through.

        Raises:
            UserError: an impossible rate, one too small for so few queries, or classes missing.
        """
        if not 0 < rate < 1:
            raise UserError(f"false-match rate {rate}: must be above 0 and below 1")
        strangers = np.sort(nearest_of_other_classes(queries, gallery, metric))
        rank = math.floor(rate * (len(strangers) + 1))
        if rank < 1:
            raise UserError(
                f"false-match rate {rate:g}: {len(strangers)} validation images can only tell "
                f"rates from {1 / (len(strangers) + 1):.2g} up; ask for more, or add images"
            )
        threshold = float(strangers[rank - 1])
        distances = tuple(map(float, strangers))
        return cls(rate, threshold, metric, model, len(gallery), distances, projection)

    def matches(self, distance: float) -> bool:
        """Whether a nearest image at this distance is a match."""
        return distance < self.threshold

    def false_match_rate_at(self, distance: float) -> float:
        """Share of strangers, at most, that find something as near as this: how sure a match is."""
        nearer = int(np.searchsorted(self.strangers, distance, side="right"))
        return (nearer + 1) / (len(self.strangers) + 1)

    def verdict(self, distance: float) -> dict[str, Any] | None:
        """Of the nearest image: found, threshold, false_match_rate; None where there is none."""
        if math.isinf(distance):
            return None
        return {
            "found": self.matches(distance),
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
    def load(cls, path: Path) -> NoMatch:
        """Read what `save` wrote.

        Raises:
            UserError: missing or damaged.
        """
        values = read_json(path)
        try:
            return cls(**values | {"strangers": tuple(map(float, values["strangers"]))})
        except (TypeError, KeyError, ValueError):
            raise UserError(f"{path}: damaged; calibrate anew") from None


def nearest_of_other_classes(queries: Embeddings, gallery: Embeddings, metric: str) -> np.ndarray:
    """Distance of each query to the nearest image of another class.

    Args:
        queries: Q labelled embeddings.
        gallery: labelled embeddings; unlabelled ones stand aside, as they may be of any class.
        metric: cosine, euclidean, manhattan or minkowski-P.

    Returns:
        (Q,) float32.

    Raises:
        UserError: no queries, an unlabelled one, or one for which the gallery has no other class.
    """
    gallery = gallery.take(gallery.labels != UNLABELLED)
    if not len(queries) or (queries.labels == UNLABELLED).any():
        raise UserError("no-match needs labelled validation images; label some")
    if len(gallery):
        check_dimension(queries.vectors, gallery.vectors.shape[1])
    arithmetic = find_metric(metric)
    prepared = arithmetic.prepare(gallery.vectors)
    nearest = []
    at_once = max(1, BLOCK_PAIRS // max(1, len(gallery)))
    for start in range(0, len(queries), at_once):
        rows = slice(start, start + at_once)
        distances = pairwise(arithmetic, arithmetic.prepare(queries.vectors[rows]), prepared)
        distances[queries.labels[rows, None] == gallery.labels] = np.inf
        nearest.append(distances.min(axis=1, initial=np.inf))
    found = np.concatenate(nearest)
    if np.isinf(found).any():
        raise UserError("no-match needs images of at least two classes in the gallery; add some")
    return found
