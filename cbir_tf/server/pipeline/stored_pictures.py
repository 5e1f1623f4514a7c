"""Uploaded pictures, checked before they are decoded, and stored pictures by their id."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np

from cbir_tf.config.data import Data
from cbir_tf.data.decode import (
    ImageError,
    TooLargeError,
    decode_image,
    decode_original,
    media_type,
)
from cbir_tf.data.picture_memory import return_large_blocks
from cbir_tf.errors import UserError
from cbir_tf.features.store import FeatureStore
from cbir_tf.plots.thumbnails import thumbnail
from cbir_tf.server.errors import ImageNotFoundError, InvalidQueryError, PictureTooLargeError
from cbir_tf.storage.remote import fetch_missing

THUMBNAILS_KEPT = 2000
MOST_MEMORY = 2**29
"""Bytes that decoding a picture from anyone may take."""


def decode_upload(picture: bytes, data: Data, max_megapixels: float) -> np.ndarray:
    """Pixels for the encoder, of a picture from anyone.

    Args:
        picture: encoded.
        data: size and resize of the encoder's input.
        max_megapixels: by the picture's header, before any pixel is decoded.

    Returns:
        (H, W, 3) uint8.

    Raises:
        PictureTooLargeError: more pixels than that, or too much memory to decode them.
        InvalidQueryError: not a picture, or a damaged one.
    """
    return_large_blocks()
    try:
        most_pixels = int(max_megapixels * 1e6)
        return decode_image(picture, data.image_size, data.resize, most_pixels, MOST_MEMORY)
    except TooLargeError as error:
        raise PictureTooLargeError(f"the picture: {error.reason}") from None
    except ImageError as error:
        raise InvalidQueryError(f"the picture: {error.reason}") from None


def thumbnail_of(picture: bytes, side: int) -> bytes:
    """A small JPEG of an encoded picture.

    Args:
        picture: encoded.
        side: pixels of its longer side.

    Raises:
        InvalidQueryError: not a picture, or a damaged one.
    """
    return_large_blocks()
    try:
        return thumbnail(decode_original(picture, side), side)
    except ImageError as error:
        raise InvalidQueryError(error.reason) from None


class StoredPictures:
    """The pictures of a run's images, by id, for any number of threads.

    An id never becomes a part of a path: the feature store holds the path of every image.

    Args:
        features: the feature store.
        encoded: pictures without a file of their own, by id; called when first needed.
    """

    def __init__(self, features: Path, encoded: Callable[[], Mapping[str, Path | bytes]]) -> None:
        self._features = features
        self._stores = threading.local()
        self._lock = threading.Lock()
        self._load_encoded = encoded
        self._encoded: Mapping[str, Path | bytes] | None = None
        self._thumbnails: OrderedDict[str, bytes] = OrderedDict()
        self._removals = 0

    def read(self, id_: str) -> tuple[bytes, str]:
        """A stored picture, encoded, and its media type.

        Raises:
            ImageNotFoundError: no such image, or its file is missing or no picture any more.
        """
        content = self._content(id_)
        kind = media_type(content[:16])
        if kind is None:
            raise ImageNotFoundError(f"{_shown(id_)}: its file is not a picture any more")
        return content, kind

    def thumbnail(self, id_: str) -> bytes | tuple[bytes, int]:
        """A small JPEG, if it is there already.

        Returns:
            The thumbnail; or the picture, encoded, and how many have been removed, for
            `keep_thumbnail`.

        Raises:
            ImageNotFoundError: as `read`.
        """
        with self._lock:
            if id_ in self._thumbnails:
                self._thumbnails.move_to_end(id_)
                return self._thumbnails[id_]
            removals = self._removals
        return self._content(id_), removals

    def keep_thumbnail(self, id_: str, small: bytes, removals: int) -> None:
        """Keep a thumbnail that has been made."""
        with self._lock:
            if removals == self._removals:  # else it may be of an image that was removed meanwhile
                self._thumbnails[id_] = small
            if len(self._thumbnails) > THUMBNAILS_KEPT:
                self._thumbnails.popitem(last=False)

    def forget(self, id_: str) -> None:
        """Drop the thumbnail of an image that was removed; also one that is just being made."""
        with self._lock:
            self._removals += 1
            self._thumbnails.pop(id_, None)

    def _content(self, id_: str) -> bytes:
        record = self._store().record(id_)
        if record is None:
            raise ImageNotFoundError(f"{_shown(id_)}: no image of that id")
        try:
            source = self._without_file(id_) if record.path is None else record.path
            if isinstance(source, bytes):
                return source
            fetch_missing([source])
            return source.read_bytes()
        except (OSError, KeyError, UserError):
            raise ImageNotFoundError(f"{_shown(id_)}: its file is missing") from None

    def _without_file(self, id_: str) -> Path | bytes:
        with self._lock:
            if self._encoded is None:
                self._encoded = self._load_encoded()
        return self._encoded[id_]

    def _store(self) -> FeatureStore:
        """This thread's connection: SQLite has one for each."""
        if not hasattr(self._stores, "store"):
            self._stores.store = FeatureStore.open(self._features)
        store: FeatureStore = self._stores.store
        return store


def _shown(id_: str) -> str:
    return repr(id_ if len(id_) <= 200 else f"{id_[:200]}...")
