"""Images of every form to vectors: paths, encoded bytes, pixels, images of Pillow."""

from __future__ import annotations

import os
import reprlib
import threading
from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

import numpy as np
from PIL import Image

from cbir_tf.config.search import Search
from cbir_tf.data.decode import decode_image, resized_pixels
from cbir_tf.errors import UserError, first_line
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
            UserError: an image cannot be read, pixels are of another shape or type, or vectors
                differ in length.
        """
        if not len(queries):
            raise UserError("no image is given; give one or more")
        pictures = [each for each in queries if not is_vector(each)]
        encoded = []
        for rows in blocks(len(pictures), 1, ENCODED_AT_ONCE):
            pixels = np.stack(list(in_parallel(self._pixels, pictures[rows])))
            with self._lock:  # Keras' predict is not safe from several threads
                encoded.append(self.of_pixels(pixels))
        from_pictures = iter(np.concatenate(encoded) if encoded else ())
        vectors = [
            np.asarray(each, np.float32) if is_vector(each) else next(from_pictures)
            for each in queries
        ]
        lengths = sorted({len(each) for each in vectors})
        if len(lengths) > 1:
            raise UserError(f"query vectors have {lengths} numbers; give vectors of one model")
        return np.stack(vectors)

    def _pixels(self, query: Query) -> np.ndarray:
        data = viewed(self.run.config.data, self.search)
        if isinstance(query, np.ndarray):
            return resized_pixels(query, data.image_size, data.resize)
        if isinstance(query, Image.Image):
            try:
                return resized_pixels(query, data.image_size, data.resize)
            except Exception as error:  # Pillow reads a file late, and raises whatever it meets
                raise UserError(f"Pillow image: could not be read ({first_line(error)})") from None
        source = query if isinstance(query, bytes) else local(query)
        return decode_image(source, data.image_size, data.resize)


def is_vector(query: Query) -> bool:
    """Whether a query is a vector that the embedder made."""
    return isinstance(query, np.ndarray) and query.ndim == 1


def listed(queries: object) -> list[Query]:
    """One query or many, as many, each in one of the forms of `Query`.

    Lists of numbers, and arrays and tensors of any library, are taken for what they can only be:
    numbers in a row or in rows are vectors, uint8 arrays and lists of three levels a picture, of
    four levels pictures, and an array of texts several paths or ids.

    Raises:
        UserError: none of these.

    Example:
        >>> listed("photo.jpg"), listed(("a.jpg", "b.jpg"))
        (['photo.jpg'], ['a.jpg', 'b.jpg'])
        >>> [vector.shape for vector in listed([[0.6, 0.8], [0, 1]])]
        [(2,), (2,)]
    """
    one = (str, os.PathLike, bytes, bytearray, memoryview, Image.Image)
    if isinstance(queries, one) or hasattr(queries, "read"):
        return [_one(queries)]
    if hasattr(queries, "__array__"):
        array = np.asarray(queries)
        if array.dtype.kind in "US" or (array.dtype.kind == "O" and array.ndim == 1):
            return [_one(each) for each in np.atleast_1d(array).tolist()]
        is_batch = array.ndim == 4 or (array.ndim == 2 and array.dtype != np.uint8)
        return [_one(each) for each in array] if is_batch else [_one(array)]
    if isinstance(queries, Mapping) or not isinstance(queries, Iterable):
        return [_one(queries)]
    items = list(queries)
    if items and all(isinstance(each, (list, tuple, int, float, np.number)) for each in items):
        array = _numbers(items)
        return list(array) if array.ndim in (2, 4) else [array]
    return [_one(each) for each in items]


def _one(query: object) -> Query:
    """A query in one of the forms of `Query`.

    Raises:
        UserError: it is none.
    """
    if hasattr(query, "read"):  # an open file
        query = query.read()
    if isinstance(query, (bytearray, memoryview)):
        return bytes(query)
    if isinstance(query, (str, Path, bytes, Image.Image)):
        return query
    if isinstance(query, os.PathLike):
        return Path(os.fsdecode(query))
    if isinstance(query, (list, tuple)) and query:
        return _numbers(query)
    array = np.asarray(query)  # of an array or tensor; anything else becomes one of one object
    if array.dtype.kind not in "fiu" or not array.ndim:
        raise UserError(
            f"query {reprlib.repr(query)}: give a path, the id of a stored image, an image's bytes "
            "or its pixels as uint8 (H, W, 3), a Pillow image, or a vector"
        )
    return array[..., 0] if array.ndim == 3 and array.shape[2] == 1 else array


def _numbers(values: Sequence[object]) -> np.ndarray:
    """Lists of numbers: vectors as float32, and, of three levels or more, pixels as uint8.

    Raises:
        UserError: they are of unequal lengths, or no numbers; or pixels not whole and in 0..255.
    """
    try:
        array = np.asarray(values)
    except ValueError:  # of unequal lengths
        array = np.empty(0, dtype=object)
    is_pixels = array.ndim > 2
    if (
        array.dtype.kind not in "fiu"
        or not array.size
        or (is_pixels and (array.dtype.kind == "f" or array.min() < 0 or array.max() > 255))
    ):
        raise UserError(
            f"query {reprlib.repr(values)}: lists are vectors, numbers in rows of one length, or "
            "pixels, whole numbers of 0 to 255 in lists of three levels"
        )
    return array.astype(np.uint8 if is_pixels else np.float32)
