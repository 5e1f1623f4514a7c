"""Pictures that come and go: uploads checked before they are decoded, stored ones by their id."""

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
from cbir_tf.errors import UserError
from cbir_tf.features.store import FeatureStore
from cbir_tf.plots.pictures import thumbnail
from cbir_tf.server.http.errors import RequestError
from cbir_tf.storage.remote import fetch_missing

THUMBNAILS_KEPT = 2000


def decode_upload(picture: bytes, data: Data, megapixels: float) -> np.ndarray:
    """Pixels as the encoder takes them, of a picture that anyone may have sent.

    Args:
        picture: encoded.
        data: size and resize of what the model sees.
        megapixels: the most; its head says how many there are, before any is decoded.

    Returns:
        (H, W, 3) uint8.

    Raises:
        RequestError: too large, or no picture that can be read.
    """
    try:
        return decode_image(picture, data.image_size, data.resize, int(megapixels * 1e6))
    except ImageError as error:
        status = 413 if isinstance(error, TooLargeError) else 422
        raise RequestError(status, f"the picture: {error.reason}") from None


class StoredPictures:
    """The pictures of a run's images, by id, for any number of threads.

    No id becomes a part of a path: the store says where an image of that id is.

    Args:
        features: the feature store.
        encoded: pictures that are no files of their own, by id; called when first needed.
        side: pixels of a thumbnail's longer side.
    """

    def __init__(
        self, features: Path, encoded: Callable[[], Mapping[str, Path | bytes]], side: int
    ) -> None:
        self._features, self._side = features, side
        self._stores = threading.local()
        self._lock = threading.Lock()
        self._load_encoded = encoded
        self._encoded: Mapping[str, Path | bytes] | None = None
        self._thumbnails: OrderedDict[str, bytes] = OrderedDict()

    def read(self, id_: str) -> tuple[bytes, str]:
        """A stored picture, encoded, and its media type.

        Raises:
            RequestError: 404, no such image, or its file has gone or is no picture any more.
        """
        content = self._content(id_)
        kind = media_type(content[:16])
        if kind is None:
            raise RequestError(404, f"{_shown(id_)}: its file is not a picture any more")
        return content, kind

    def thumbnail(self, id_: str) -> bytes:
        """A small JPEG.

        Raises:
            RequestError: as `read`.
        """
        with self._lock:
            if id_ in self._thumbnails:
                self._thumbnails.move_to_end(id_)
                return self._thumbnails[id_]
        try:
            small = thumbnail(decode_original(self._content(id_), self._side), self._side)
        except ImageError as error:
            raise RequestError(404, f"{_shown(id_)}: {error.reason}") from None
        with self._lock:
            self._thumbnails[id_] = small
            if len(self._thumbnails) > THUMBNAILS_KEPT:
                self._thumbnails.popitem(last=False)
        return small

    def forget(self, id_: str) -> None:
        """Of an image that was taken out."""
        with self._lock:
            self._thumbnails.pop(id_, None)

    def _content(self, id_: str) -> bytes:
        record = self._store().record(id_)
        if record is None:
            raise RequestError(404, f"{_shown(id_)}: no image of that id")
        try:
            source = self._of_no_file(id_) if record.path is None else record.path
            if isinstance(source, bytes):
                return source
            fetch_missing([source])
            return source.read_bytes()
        except (OSError, KeyError, UserError):
            raise RequestError(404, f"{_shown(id_)}: its file has gone") from None

    def _of_no_file(self, id_: str) -> Path | bytes:
        with self._lock:
            if self._encoded is None:
                self._encoded = self._load_encoded()
        return self._encoded[id_]

    def _store(self) -> FeatureStore:
        """A connection for each thread, as SQLite has it."""
        if not hasattr(self._stores, "store"):
            self._stores.store = FeatureStore.open(self._features)
        store: FeatureStore = self._stores.store
        return store


def _shown(id_: str) -> str:
    return repr(id_ if len(id_) <= 200 else f"{id_[:200]}...")
