"""An embedding as the sum of what each place of the image adds to it.

An embedder pools a feature map, and its head makes a vector of that. What follows the average is
linear (a dense layer, the scaling to length 1 by the length the vector has), so that the vector is
the sum of the same head applied to each place's share, biases in equal parts. Then the cosine of
two images is the sum over all pairs of their places.

Heads that are not linear are taken as they are at this image: a hidden layer's relu lets through
what it lets through of the whole; a maximum belongs to the place where it is; of a generalised mean
of power p every place has its share of the sum of powers, which is Euler's theorem for a function
of degree 1. Such shares still sum to the vector, but a place's share would change with the others.
"""

from __future__ import annotations

import keras
import numpy as np

from cbir_tf.errors import UserError

LINEAR, LOCAL = "linear", "local"


def embedding_shares(embedder: keras.Model, pixels: np.ndarray) -> tuple[np.ndarray, str]:
    """What each place of some images adds to their embeddings.

    Args:
        embedder: as `load_embedder` gives it.
        pixels: (B, H, W, 3) uint8.

    Returns:
        (B, h, w, D) float64 shares, h x w being the feature map's places: they sum to the
        embedding. And whether they are linear, or local where the head is not.

    Raises:
        UserError: its feature map has one place only, or its head an unknown layer.
    """
    names = [layer.name for layer in embedder.layers]
    pooling = embedder.get_layer("pooling")
    features = keras.Model(embedder.inputs, pooling.input)
    found = np.asarray(features.predict_on_batch(pixels), dtype=np.float64)
    batch, height, width, channels = found.shape
    if height * width == 1:
        raise UserError("the network has pooled its features already: no place is left to show")
    places = found.reshape(batch, height * width, channels)
    values, kind = _pooled(pooling, places)
    for layer in embedder.layers[names.index("pooling") + 1 :]:
        values, linear = _after(layer, values)
        kind = kind if linear else LOCAL
    return values.reshape(batch, height, width, -1), kind


def _pooled(pooling: keras.Layer, places: np.ndarray) -> tuple[np.ndarray, str]:
    """(B, P, C) each place's share of the pooled features."""
    count = places.shape[1]
    if isinstance(pooling, keras.layers.GlobalAveragePooling2D):
        return places / count, LINEAR
    if isinstance(pooling, keras.layers.GlobalMaxPooling2D):
        where = np.arange(count)[None, :, None] == places.argmax(axis=1, keepdims=True)
        return places * where, LOCAL
    power, least = float(np.asarray(pooling.p)), pooling.epsilon
    places = np.maximum(places, least)
    largest = places.max(axis=1, keepdims=True)
    powers = (places / largest) ** power
    whole = largest * powers.mean(axis=1, keepdims=True) ** (1 / power)
    return whole * powers / powers.sum(axis=1, keepdims=True), LOCAL


def _after(layer: keras.Layer, shares: np.ndarray) -> tuple[np.ndarray, bool]:
    """(B, P, D) shares after a layer of the head, and whether it is linear."""
    count = shares.shape[1]
    if isinstance(layer, keras.layers.Dropout):
        return shares, True
    if isinstance(layer, keras.layers.UnitNormalization):
        lengths = np.linalg.norm(shares.sum(axis=1, keepdims=True), axis=-1, keepdims=True)
        return shares / np.where(lengths > 0, lengths, 1), True
    if isinstance(layer, keras.layers.BatchNormalization):
        scale = np.asarray(layer.gamma) / np.sqrt(
            np.asarray(layer.moving_variance, np.float64) + layer.epsilon
        )
        shift = np.asarray(layer.beta) - np.asarray(layer.moving_mean) * scale
        return shares * scale + shift / count, True
    if not isinstance(layer, keras.layers.Dense):
        raise UserError(f"the head has a layer {layer.name!r}, of which no share can be told")
    shares = shares @ np.asarray(layer.kernel, np.float64) + np.asarray(layer.bias) / count
    if layer.activation is keras.activations.linear:
        return shares, True
    return shares * (shares.sum(axis=1, keepdims=True) > 0), False
