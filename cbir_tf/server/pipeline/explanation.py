"""Why two images match: their cosine similarity as a sum over the places of both."""

from __future__ import annotations

from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from cbir_tf.config import Config
from cbir_tf.config.data import Data
from cbir_tf.errors import UserError
from cbir_tf.features.views import views_of
from cbir_tf.retrieval.whitening import Whitening
from cbir_tf.server.errors import NotPossibleError, UnavailableError
from cbir_tf.server.pipeline.decoding import Sized
from cbir_tf.server.pipeline.subprocess_worker import SubprocessWorker

if TYPE_CHECKING:
    import keras

EXPLAIN_SECONDS = 120.0
"""Most for an explanation, the first of which loads TensorFlow and the model."""

Area = tuple[float, float, float, float]


@dataclass(frozen=True, eq=False)
class Explanation:
    """The similarity of two images as a sum of contributions.

    Attributes:
        pairs: (P, P) contribution of each place of the first image with each of the second, places
            row by row; the sum is the similarity.
        shape: height and width of the grid of P places.
        kind: linear or local (`cbir_tf.models.attribution`).
    """

    pairs: np.ndarray
    shape: tuple[int, int]
    kind: str

    @property
    def first(self) -> np.ndarray:
        """(H, W) contribution of each place of the first image."""
        contributions: np.ndarray = self.pairs.sum(axis=1).reshape(self.shape)
        return contributions

    @property
    def second(self) -> np.ndarray:
        """(H, W) contribution of each place of the second image."""
        contributions: np.ndarray = self.pairs.sum(axis=0).reshape(self.shape)
        return contributions


class Explainer:
    """Explains matches of one run, one after another, in a process of its own.

    Args:
        model: the run's saved embedder.
        data: size and resize of the embedder's input.
    """

    def __init__(self, model: Path, data: Data) -> None:
        self._model, self._data = model, data
        self._worker = SubprocessWorker()

    def explain(
        self, query: Sized, match: Sized, whitening: Whitening | None
    ) -> tuple[Explanation, Area, Area]:
        """The similarity of two decoded pictures, and the parts of them that the model sees.

        Raises:
            ServiceError: this run's matches cannot be explained, or not at the moment.
        """
        data, pixels = self._data, np.stack([query[0], match[0]])
        try:
            shares, kind = self._worker.run(shares_of, self._model, pixels, seconds=EXPLAIN_SECONDS)
        except UserError as error:
            raise NotPossibleError(f"matches of this run cannot be explained: {error}") from None
        except (BrokenProcessPool, TimeoutError):
            raise UnavailableError("the explanation was interrupted; try again") from None
        except OSError as error:  # as in AWS Lambda
            raise NotPossibleError(
                f"matches cannot be explained here: no process could be started ({error}); "
                "serve the run on a machine of its own"
            ) from None
        first, second = (area_of(size, data.image_size, data.resize) for _, size in (query, match))
        return explanation(shares, kind, whitening), first, second

    def close(self) -> None:
        """End the process."""
        self._worker.close()


def why_not(config: Config) -> str | None:
    """The reason why matches of such a run cannot be explained; None: they can."""
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
    """`embedding_shares` of a saved embedder, in a process of its own that keeps the embedder.

    Raises:
        UserError: it is no embedder, or not one whose embeddings are sums over places.
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


def explanation(shares: np.ndarray, kind: str, whitening: Whitening | None) -> Explanation:
    """The cosine similarity of two images.

    Args:
        shares: (2, H, W, D) contribution of each place to their embeddings.
        kind: linear or local.
        whitening: applied to their vectors before the comparison; linear too.
    """
    _, height, width, dimension = shares.shape
    places = shares.reshape(2, height * width, dimension)
    if whitening is not None:
        places = (places - whitening.mean / (height * width)) @ whitening.directions
    lengths = np.linalg.norm(places.sum(axis=1), axis=-1)
    scale = np.prod(np.where(lengths > 0, lengths, 1))
    return Explanation(places[0] @ places[1].T / scale, (height, width), kind)


def area_of(size: tuple[int, int], target: tuple[int, int], resize: str) -> Area:
    """The part of a picture that the model sees.

    Args:
        size: width and height of the picture, upright.
        target: height and width of the model's input.
        resize: stretch, letterbox or crop.

    Returns:
        Left, top, width and height as shares of the picture's; beyond 0..1 for a letterbox.

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
