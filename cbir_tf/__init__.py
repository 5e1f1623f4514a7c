"""Image retrieval with Keras 3: train an embedding, extract, search, see and measure."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from cbir_tf.config import Config
    from cbir_tf.errors import UserError
    from cbir_tf.retrieval.extraction import extract
    from cbir_tf.retrieval.gallery import Gallery
    from cbir_tf.retrieval.photo_folder import open_folder
    from cbir_tf.retrieval.retriever import Retriever
    from cbir_tf.retrieval.run_evaluation import evaluate
    from cbir_tf.run import Run
    from cbir_tf.training.from_config import train
    from cbir_tf.types import Embeddings, ImageSet, QueryBatch, Results

__version__ = "0.2.0"

__all__ = [
    "Config",
    "Embeddings",
    "Gallery",
    "ImageSet",
    "QueryBatch",
    "Results",
    "Retriever",
    "Run",
    "UserError",
    "__version__",
    "evaluate",
    "extract",
    "open_folder",
    "train",
]

_HOME = {
    "Config": "config",
    "Embeddings": "types",
    "Gallery": "retrieval.gallery",
    "ImageSet": "types",
    "QueryBatch": "types",
    "Results": "types",
    "Retriever": "retrieval.retriever",
    "Run": "run",
    "UserError": "errors",
    "evaluate": "retrieval.run_evaluation",
    "extract": "retrieval.extraction",
    "open_folder": "retrieval.photo_folder",
    "train": "training.from_config",
}


def __getattr__(name: str) -> Any:
    # Imported when first used: `cbir --help` must not wait for TensorFlow.
    if name not in _HOME:
        raise AttributeError(f"module 'cbir_tf' has no attribute {name!r}")
    return getattr(importlib.import_module(f"cbir_tf.{_HOME[name]}"), name)
