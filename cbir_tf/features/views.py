"""Test-time augmentation: the vector of an image is the mean of the vectors of several views.

- flip: the image and its mirror image.
- crops: three crops, at the start, the middle and the end of the longer side, which together cover
  the whole image, each with its mirror image.
- rotations: the image rotated by 0, 90, 180 and 270 degrees.

Each view can be encoded at several scales, as an embedding depends on the size of the objects in
pixels (Gordo et al. 2017, End-to-end learning of deep visual representations for image retrieval).

If the embedder scales its vectors to length 1, the mean is scaled to length 1 too. Gallery images
and queries need the same views, or their vectors are not comparable: the feature store therefore
records the views of its vectors. Training does not use them.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from PIL import Image

from cbir_tf.config.data import Data
from cbir_tf.config.search import Search
from cbir_tf.data.decode import CROPS
from cbir_tf.features import runtime
from cbir_tf.features.runtime import Encoder
from cbir_tf.run import Run
from cbir_tf.storage.files import sha256


def averaging(encoder: Encoder, search: Search, normalize: bool) -> Encoder:
    """An encoder that gives the mean over the views.

    Args:
        encoder: of one view.
        search: test_time_augmentation and test_time_scales are used; without either, the encoder
            is returned unchanged. For crops, images must be read with the settings of `viewed`.
        normalize: scale the mean to length 1.

    Example:
        >>> left_and_right = lambda pixels: pixels[:, 0, :, 0].astype(np.float32)
        >>> encoder = averaging(left_and_right, Search(test_time_augmentation="flip"), False)
        >>> encoder(np.uint8([[[[4], [0]]]])).tolist()
        [[2.0, 2.0]]
    """
    if views_of(search) == "none":
        return encoder

    def encode(pixels: np.ndarray) -> np.ndarray:
        # One view after another: together they would multiply the memory needed.
        vectors = [
            encoder(_scaled(view, scale)).astype(np.float64)
            for view in _views(pixels, search.test_time_augmentation)
            for scale in search.test_time_scales
        ]
        mean = np.mean(vectors, axis=0)
        if normalize:
            lengths = np.linalg.norm(mean, axis=1, keepdims=True)
            mean /= np.where(lengths > 0, lengths, 1)
        averaged: np.ndarray = mean.astype(np.float32)
        return averaged

    return encode


def _views(pixels: np.ndarray, augmentation: str) -> Iterator[np.ndarray]:
    """(B, H, W, 3), one view after another."""
    if augmentation == "none":
        yield pixels
    elif augmentation == "flip":
        yield from (pixels, pixels[:, :, ::-1])
    elif augmentation == "crops":
        for crop in np.split(pixels, CROPS, axis=2):
            yield from (crop, crop[:, :, ::-1])
    else:
        yield from (np.rot90(pixels, turns, axes=(1, 2)) for turns in range(4))


def _scaled(view: np.ndarray, scale: float) -> np.ndarray:
    """(B, H, W, 3), contiguous: bilinear with antialiasing, as images are read."""
    if scale == 1:
        return np.ascontiguousarray(view)
    height, width = (max(1, round(scale * side)) for side in view.shape[1:3])
    return np.stack(
        [
            np.asarray(Image.fromarray(each).resize((width, height), Image.Resampling.BILINEAR))
            for each in np.ascontiguousarray(view)
        ]
    )


def views_of(search: Search) -> str:
    """The views in words, for example `flip at 0.857, 1, 1.143`; none: the image alone."""
    if search.test_time_scales == (1.0,):
        return search.test_time_augmentation
    scales = ", ".join(f"{each:g}" for each in search.test_time_scales)
    return f"{search.test_time_augmentation} at {scales}"


def viewed(data: Data, search: Search) -> Data:
    """The settings for reading images for their views: with crops, three crops side by side."""
    if search.test_time_augmentation != "crops":
        return data
    height, width = data.image_size
    return data.model_copy(update={"image_size": (height, CROPS * width), "resize": "crops"})


def open_run_encoder(run: Run, search: Search) -> Encoder:
    """The encoder of a run, with its views (see `cbir_tf.features.runtime.open_encoder`).

    Raises:
        UserError: the model is missing or damaged.
    """
    encoder = runtime.open_encoder(run.model, run.config.data.image_size)
    normalize = run.config.model.normalize and not run.config.descriptors
    return averaging(encoder, search, normalize)


def encoder_fingerprint(run: Run, search: Search) -> str:
    """The fingerprint of a run's encoder and its test-time augmentation.

    A feature store keeps it with the vectors, so that vectors of two encoders are never compared.

    Returns:
        The SHA-256 of the model file, followed by the views if there are several, for example
        `9f86... flip`. Stores older than test-time augmentation have the digest alone.

    Raises:
        OSError: the model file could not be read.
    """
    digest, views = sha256(run.model), views_of(search)
    return digest if views == "none" else f"{digest} {views}"
