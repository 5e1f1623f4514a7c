"""Preprocessing of pixels for each backbone, as native Keras layers inside the saved model."""

from __future__ import annotations

from typing import Literal

import keras
from keras import layers, ops

Preprocessing = Literal["signed", "centered", "unit", "caffe", "imagenet", "none"]
"""signed: x / 127.5 - 1. centered: (x - 127) / 128. unit: x / 255. caffe: BGR minus the ImageNet
mean. imagenet: RGB / 255 minus ImageNet's mean, divided by its deviation. none: 0 to 255, for
backbones that rescale themselves."""

# As in keras.applications.imagenet_utils: RGB in 0..1, and BGR in 0..255 for Caffe.
_MEAN = (0.485, 0.456, 0.406)
_DEVIATION = (0.229, 0.224, 0.225)
_CAFFE_MEAN = (103.939, 116.779, 123.68)


def preprocess(image: keras.KerasTensor, kind: Preprocessing) -> keras.KerasTensor:
    """Turn uint8 RGB (B, H, W, 3) into the float32 input of a backbone.

    It stays float32 under a mixed policy, where the backbone's first layer casts. The last layer
    is called `preprocessing`.
    """
    if kind == "signed":
        return _rescaling(1 / 127.5, -1.0)(image)
    if kind == "centered":
        return _rescaling(1 / 128, -127 / 128)(image)
    if kind == "unit":
        return _rescaling(1 / 255, 0.0)(image)
    if kind == "caffe":
        bgr = ops.flip(image, axis=-1)
        return _normalization(_CAFFE_MEAN, (1.0, 1.0, 1.0))(bgr)
    if kind == "imagenet":
        mean = tuple(255 * each for each in _MEAN)
        return _normalization(mean, tuple(255 * each for each in _DEVIATION))(image)
    return _rescaling(1.0, 0.0)(image)


def _rescaling(scale: float, offset: float) -> keras.Layer:
    return layers.Rescaling(scale, offset, dtype="float32", name="preprocessing")


def _normalization(mean: tuple[float, ...], deviation: tuple[float, ...]) -> keras.Layer:
    return layers.Normalization(
        mean=list(mean),
        variance=[each**2 for each in deviation],
        dtype="float32",
        name="preprocessing",
    )
