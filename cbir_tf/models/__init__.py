"""Backbones, heads, weights: the embedder."""

from cbir_tf.models.embedder import (
    build_embedder,
    frozen_batch_norm_digest,
    initial_weights_from,
    load_classifier,
    load_embedder,
    unnormalized,
)

__all__ = [
    "build_embedder",
    "frozen_batch_norm_digest",
    "initial_weights_from",
    "load_classifier",
    "load_embedder",
    "unnormalized",
]
