"""From an embedding back to pixels: the other half of an auto-encoder."""

from __future__ import annotations

import math

import keras
from keras import layers

LARGEST_START = 7
LAST_WIDTH = 32
LARGEST_WIDTH = 256


def build_decoder(embedding_size: int, height: int, width: int) -> keras.Model:
    """A dense layer makes a small feature map, which is doubled in size until it is the image's.

    Each doubling repeats pixels and then convolves, which leaves none of the checkerboards of
    transposed convolutions (Odena et al. 2016, https://distill.pub/2016/deconv-checkerboard). The
    map starts with at most 7 pixels a side; from 32 channels at the end, their number doubles
    towards the start, up to 256. Computes under Keras' global dtype policy, the pixels in float32.

    Args:
        embedding_size: D.
        height: of the image, in pixels.
        width: of the image, in pixels.

    Returns:
        float32 (B, D) -> float32 (B, height, width, 3) in 0..1.
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
