"""Images of every form to vectors: paths, encoded bytes, pixels, images of Pillow."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

import numpy as np
from PIL import Image

from cbir_tf.config.search import Search
from cbir_tf.data.decode import decode_image, resized_pixels
from cbir_tf.errors import UserError
from cbir_tf.features.runtime import DESCRIPTORS, Encoder
from cbir_tf.features.views import open_run_encoder, viewed
from cbir_tf.parallel import blocks, in_parallel
from cbir_tf.run import Run
from cbir_tf.storage.remote import local

if TYPE_CHECKING:
    import keras

Query: TypeAlias = str | Path | bytes | np.ndarray | Image.Image
"""Path or encoded bytes of an image, id of a stored one, uint8 (H, W, 3) RGB pixels of any size, an
image of Pillow, or a float (D,) vector as the embedder makes it."""

ENCODED_AT_ONCE = 32


class ImageEncoder:
    """Embeds images as a run's extraction does; safe to use from several threads.

    Args:
        run: a trained run.
        search: its test-time augmentation.
        opened: the run's encoder of pixels, if it is open already.
    """

    def __init__(self, run: Run, search: Search, opened: Encoder | None = None) -> None:
        self.run, self.search = run, search
        self._opened, self._lock = opened, threading.Lock()

    @cached_property
    def of_pixels(self) -> Encoder:
        """Embeds pixels of the configuration's size, or of another one, fastest."""
        return self._opened or open_run_encoder(self.run, self.search)

    @cached_property
    def model(self) -> keras.Model:
        """The embedder in Keras: uint8 RGB (B, H, W, 3) of any size to float32 (B, D).

        Raises:
            UserError: the run has descriptors in its place.
        """
        if self.run.model.suffix == DESCRIPTORS:
            raise UserError(f"{self.run.model}: descriptors are no Keras model; use .of_pixels")
        from cbir_tf.models import load_embedder

        return load_embedder(self.run.model)

    def __call__(self, queries: Sequence[Query]) -> np.ndarray:
        """(Q, D) float32 vectors, as the embedder makes them.

        Args:
            queries: images, or vectors, which are passed through.

        Raises:
            UserError: an image cannot be read, or pixels are of another shape or type.
        """
        pictures = [each for each in queries if not is_vector(each)]
        encoded = []
        for rows in blocks(len(pictures), 1, ENCODED_AT_ONCE):
            pixels = np.stack(list(in_parallel(self._pixels, pictures[rows])))
            with self._lock:  # Keras' predict is not safe from several threads
                encoded.append(self.of_pixels(pixels))
        from_pictures = iter(np.concatenate(encoded) if encoded else ())
        return np.stack(
            [
                np.asarray(each, np.float32) if is_vector(each) else next(from_pictures)
                for each in queries
            ]
        )

    def _pixels(self, query: Query) -> np.ndarray:
        data = viewed(self.run.config.data, self.search)
        if isinstance(query, (np.ndarray, Image.Image)):
            return resized_pixels(query, data.image_size, data.resize)
        source = query if isinstance(query, bytes) else local(query)
        return decode_image(source, data.image_size, data.resize)


def is_vector(query: Query) -> bool:
    """Whether a query is a vector that the embedder made."""
    return isinstance(query, np.ndarray) and query.ndim == 1


def listed(queries: Query | Sequence[Query]) -> Sequence[Query]:
    """One query or many, as many.

    Example:
        >>> listed("photo.jpg"), listed(["a.jpg", "b.jpg"])
        (['photo.jpg'], ['a.jpg', 'b.jpg'])
    """
    if isinstance(queries, (str, Path, bytes, Image.Image)):
        return [queries]
    if isinstance(queries, np.ndarray):
        is_batch = queries.ndim == 4 or (queries.ndim == 2 and queries.dtype != np.uint8)
        return list(queries) if is_batch else [queries]
    return list(queries)
