"""The decoder of an auto-encoder: from an embedding back to pixels."""

from __future__ import annotations

import math

import keras
from keras import layers

LARGEST_START = 7
LAST_WIDTH = 32
LARGEST_WIDTH = 256


def build_decoder(embedding_size: int, height: int, width: int) -> keras.Model:
    """A dense layer makes a small feature map, which is doubled up to the size of the image.

    Each doubling repeats pixels and then convolves, which avoids the checkerboard artefacts of
    transposed convolutions (Odena et al. 2016, https://distill.pub/2016/deconv-checkerboard). The
    first map has at most 7 x 7 pixels; the last has 32 channels, each one before it twice as many,
    up to 256. Computes under Keras' global dtype policy, the pixels in float32.

    Args:
        embedding_size: D.
        height: height of the image in pixels.
        width: width of the image in pixels.

    Returns:
        float32 (B, D) -> float32 (B, height, width, 3) in 0..1.

    Example:
        >>> build_decoder(16, height=28, width=20).output_shape
        (None, 28, 20, 3)
    """
    doublings = max(0, math.ceil(math.log2(max(height, width) / LARGEST_START)))
    rows, columns = (math.ceil(side / 2**doublings) for side in (height, width))
    vector = keras.Input((embedding_size,), name="embedding")
    channels = _channels(doublings)
    x = layers.Dense(rows * columns * channels, activation="relu", name="map")(vector)
    x = layers.Reshape((rows, columns, channels), name="start")(x)
    for left in reversed(range(doublings)):
        name = f"doubling_{doublings - left}"
        x = layers.UpSampling2D(name=f"{name}_size")(x)
        x = layers.Conv2D(_channels(left), 3, padding="same", use_bias=False, name=name)(x)
        x = layers.BatchNormalization(momentum=0.9, name=f"{name}_norm")(x)
        x = layers.ReLU(name=f"{name}_relu")(x)
    x = layers.Conv2D(3, 3, padding="same", activation="sigmoid", dtype="float32", name="pixels")(x)
    down, right = rows * 2**doublings - height, columns * 2**doublings - width
    x = layers.Cropping2D(((0, down), (0, right)), dtype="float32", name="crop")(x)
    return keras.Model(vector, x, name="decoder")


def _channels(doublings_left: int) -> int:
    return int(min(LAST_WIDTH * 2**doublings_left, LARGEST_WIDTH))
