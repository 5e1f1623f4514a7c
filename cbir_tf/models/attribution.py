"""Attribution: an embedding as the sum of the contributions of the places of the image.

An embedder pools a feature map, and its head turns the result into a vector. After average pooling
the head is linear (a dense layer, division by the length of the vector), so the vector is the sum
of the head applied to the share of each place, with biases in equal parts, and the cosine of two
images is a sum over all pairs of their places (Stylianou et al. 2019, Visualizing Deep Similarity
Networks, https://arxiv.org/abs/1901.00536).

Other heads are linearised at the image: a relu keeps the units it keeps for the whole vector; a
maximum belongs to the place where it is; in a generalised mean of power p each place has its share
of the sum of powers (Euler's theorem for homogeneous functions). Such shares also sum to the
vector, but the share of a place depends on the other places.
"""

from __future__ import annotations

import keras
import numpy as np

from cbir_tf.errors import UserError

LINEAR, LOCAL = "linear", "local"


def embedding_shares(embedder: keras.Model, pixels: np.ndarray) -> tuple[np.ndarray, str]:
    """The share of each place of the feature map in the embedding.

    Args:
        embedder: a model returned by `load_embedder`.
        pixels: (B, H, W, 3) uint8.

    Returns:
        (B, h, w, D) float64 shares, which sum to the embeddings over the h x w places of the
        feature map; and LINEAR, or LOCAL where the head is not linear.

    Raises:
        UserError: the feature map has one place only, or the head has an unknown layer.
    """
    names = [layer.name for layer in embedder.layers]
    pooling = embedder.get_layer("pooling")
    features = keras.Model(embedder.inputs, pooling.input)
    found = np.asarray(features.predict_on_batch(pixels), dtype=np.float64)
    batch, height, width, channels = found.shape
    if height * width == 1:
        raise UserError(
            "attribution: the feature map of this backbone has one place only; use a backbone "
            "whose map has several"
        )
    places = found.reshape(batch, height * width, channels)
    values, kind = _pooled(pooling, places)
    for layer in embedder.layers[names.index("pooling") + 1 :]:
        values, linear = _after(layer, values)
        kind = kind if linear else LOCAL
    return values.reshape(batch, height, width, -1), kind


def _pooled(pooling: keras.Layer, places: np.ndarray) -> tuple[np.ndarray, str]:
    """(B, P, C) the share of each place in the pooled features."""
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
        raise UserError(
            f"attribution: no rule for the layer {layer.name!r} of the head; use a head of dense "
            "layers"
        )
    shares = shares @ np.asarray(layer.kernel, np.float64) + np.asarray(layer.bias) / count
    if layer.activation is keras.activations.linear:
        return shares, True
    return shares * (shares.sum(axis=1, keepdims=True) > 0), False
