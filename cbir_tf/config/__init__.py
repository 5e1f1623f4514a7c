"""The configuration of a run: one module a section, parsing and messages beside them."""

from cbir_tf.config.config import Config

__all__ = ["Config"]
