"""Backbones, heads, weights: the embedder."""

from cbir_tf.models.embedder import build_embedder, frozen_batch_norm_digest, load_embedder

__all__ = ["build_embedder", "frozen_batch_norm_digest", "load_embedder"]
