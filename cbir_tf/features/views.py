"""Test-time augmentation: the vector of an image is the mean of those of several views of it.

- flip: the image and its mirror image.
- crops: three crops, from the beginning, the middle and the end of the longer side, so that nothing
  of the photo is left out, each with its mirror image.
- rotations: the image turned by 0, 90, 180 and 270 degrees.

Embedders that scale their vectors to length 1 have the mean scaled so too. Images of the gallery
and queries go through the same views, or their vectors could not be compared: a feature store
therefore knows with which its vectors were made. Training knows nothing of them.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from cbir_tf.config import Data
from cbir_tf.data.decode import CROPS
from cbir_tf.features import runtime
from cbir_tf.features.runtime import Encoder
from cbir_tf.files import sha256
from cbir_tf.types import Run


def averaging(encoder: Encoder, augmentation: str, normalize: bool) -> Encoder:
    """An encoder that gives the mean over the views.

    Args:
        encoder: of one view.
        augmentation: flip, crops, whose images are read as `viewed` has it, rotations, or none,
            which leaves the encoder as it is.
        normalize: scale the mean to length 1.

    Example:
        >>> left_and_right = lambda pixels: pixels[:, 0, :, 0].astype(np.float32)
        >>> encoder = averaging(left_and_right, "flip", normalize=False)
        >>> encoder(np.uint8([[[[4], [0]]]])).tolist()
        [[2.0, 2.0]]
    """
    if augmentation == "none":
        return encoder

    def encode(pixels: np.ndarray) -> np.ndarray:
        # One view after another: together they would take so many times the memory.
        vectors = [
            encoder(np.ascontiguousarray(view)).astype(np.float64)
            for view in _views(pixels, augmentation)
        ]
        mean = np.mean(vectors, axis=0)
        if normalize:
            lengths = np.linalg.norm(mean, axis=1, keepdims=True)
            mean /= np.where(lengths > 0, lengths, 1)
        return mean.astype(np.float32)

    return encode


def _views(pixels: np.ndarray, augmentation: str) -> Iterator[np.ndarray]:
    """(B, H, W, 3), one view after another."""
    if augmentation == "flip":
        yield from (pixels, pixels[:, :, ::-1])
    elif augmentation == "crops":
        for crop in np.split(pixels, CROPS, axis=2):
            yield from (crop, crop[:, :, ::-1])
    else:
        yield from (np.rot90(pixels, turns, axes=(1, 2)) for turns in range(4))


def viewed(data: Data, augmentation: str) -> Data:
    """How images are read for their views: with crops, three side by side."""
    if augmentation != "crops":
        return data
    height, width = data.image_size
    return data.model_copy(update={"image_size": (height, CROPS * width), "resize": "crops"})


def open_run_encoder(run: Run, augmentation: str) -> Encoder:
    """What makes the vectors of a run (see `cbir_tf.features.runtime.open_encoder`).

    Raises:
        UserError: no embedder there, or a damaged one.
    """
    encoder = runtime.open_encoder(run.model, run.config.data.image_size)
    normalize = run.config.model.normalize and not run.config.descriptors
    return averaging(encoder, augmentation, normalize)


def maker_of(run: Run, augmentation: str) -> str:
    """What a feature store calls that which made its vectors.

    It is the SHA-256 of the model, followed by the augmentation if there is one: stores from before
    there was any say the same as those without.
    """
    digest = sha256(run.model)
    return digest if augmentation == "none" else f"{digest} {augmentation}"
