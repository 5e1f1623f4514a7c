"""How good the retrieval is: figures with intervals, by class, and the mistakes."""

from __future__ import annotations

from cbir_tf.evaluation.confusion import Mistake, confusion_matrix, mistakes
from cbir_tf.evaluation.metrics import bootstrap_intervals, evaluate, per_query
from cbir_tf.evaluation.rankings import score_rankings
from cbir_tf.evaluation.table import format_classes, format_table

__all__ = [
    "Mistake",
    "bootstrap_intervals",
    "confusion_matrix",
    "evaluate",
    "format_classes",
    "format_table",
    "mistakes",
    "per_query",
    "score_rankings",
]
