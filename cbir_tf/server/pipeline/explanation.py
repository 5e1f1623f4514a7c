"""Why two images match: their cosine similarity as a sum over the places of both."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from cbir_tf.config import Config
from cbir_tf.features.views import views_of
from cbir_tf.retrieval.whitening import Whitening

if TYPE_CHECKING:
    import keras

Area = tuple[float, float, float, float]


@dataclass(frozen=True, eq=False)
class Explanation:
    """The similarity of two images, taken apart.

    Attributes:
        pairs: (P, P) what each place of the first and each of the second contribute together,
            places row by row; the sum is the similarity.
        shape: height and width of the grid of P places.
        kind: linear or local (`cbir_tf.models.attribution`).
    """

    pairs: np.ndarray
    shape: tuple[int, int]
    kind: str

    @property
    def first(self) -> np.ndarray:
        """(H, W) what each place of the first image contributes."""
        return self.pairs.sum(axis=1).reshape(self.shape)

    @property
    def second(self) -> np.ndarray:
        """(H, W) what each place of the second image contributes."""
        return self.pairs.sum(axis=0).reshape(self.shape)


def why_not(config: Config) -> str | None:
    """Why matches of such a run cannot be explained; None: they can."""
    if config.descriptors:
        return "its vectors are made by classical descriptors, not by a network that pools places"
    views = views_of(config.search)
    if views != "none":
        return (
            "its vectors are means over several views "
            f"(search.test_time_augmentation, search.test_time_scales: {views})"
        )
    return None


def shares_of(model: Path, pixels: np.ndarray) -> tuple[np.ndarray, str]:
    """`embedding_shares` of a saved embedder, which is kept; for a process of its own.

    Raises:
        UserError: it is no embedder, or it cannot tell.
    """
    embedder = _embedder(model)
    from cbir_tf.models.attribution import embedding_shares

    return embedding_shares(embedder, pixels)


@cache
def _embedder(model: Path) -> keras.Model:
    from cbir_tf.startup import import_tensorflow

    import_tensorflow()
    from cbir_tf.models import load_embedder

    return load_embedder(model)


def explanation(shares: np.ndarray, kind: str, projection: Whitening | None) -> Explanation:
    """The cosine similarity of two images.

    Args:
        shares: (2, H, W, D) what each place adds to their embeddings.
        kind: linear or local.
        projection: that their vectors go through before they are compared; it is linear too.
    """
    _, height, width, dimension = shares.shape
    places = shares.reshape(2, height * width, dimension)
    if projection is not None:
        places = (places - projection.mean / (height * width)) @ projection.directions
    lengths = np.linalg.norm(places.sum(axis=1), axis=-1)
    scale = np.prod(np.where(lengths > 0, lengths, 1))
    return Explanation(places[0] @ places[1].T / scale, (height, width), kind)


def area_of(size: tuple[int, int], target: tuple[int, int], resize: str) -> Area:
    """Which part of a picture the model sees.

    Args:
        size: width and height of the picture, upright.
        target: height and width of what the model sees.
        resize: stretch, letterbox or crop.

    Returns:
        Left, top, width and height as shares of the picture's; letterboxed, more than all of it.

    Example:
        >>> area_of((200, 100), (50, 50), "crop")
        (0.25, 0.0, 0.5, 1.0)
        >>> area_of((200, 100), (50, 50), "letterbox")
        (0.0, -0.5, 1.0, 2.0)
    """
    share = (target[1] / target[0]) / (size[0] / size[1])
    if resize == "stretch":
        return 0.0, 0.0, 1.0, 1.0
    if (resize == "crop") == (share < 1):
        return (1 - share) / 2, 0.0, share, 1.0
    return 0.0, (1 - 1 / share) / 2, 1.0, 1 / share
