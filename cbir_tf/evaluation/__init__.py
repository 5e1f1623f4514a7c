"""How good the retrieval is: figures with intervals, by class, and the mistakes."""

from __future__ import annotations

from cbir_tf.evaluation.centroids import nearest_centroid
from cbir_tf.evaluation.comparison import Difference, paired_bootstrap
from cbir_tf.evaluation.confusion import Mistake, confusion_matrix, mistakes
from cbir_tf.evaluation.label_sets import LabelSets
from cbir_tf.evaluation.levels import evaluate_levels, read_levels
from cbir_tf.evaluation.metrics import bootstrap_intervals, evaluate, per_query, summarize
from cbir_tf.evaluation.rankings import normalized_gain, score_rankings
from cbir_tf.evaluation.table import format_accuracy, format_classes, format_table

__all__ = [
    "Difference",
    "LabelSets",
    "Mistake",
    "bootstrap_intervals",
    "confusion_matrix",
    "evaluate",
    "evaluate_levels",
    "format_accuracy",
    "format_classes",
    "format_table",
    "mistakes",
    "nearest_centroid",
    "normalized_gain",
    "paired_bootstrap",
    "per_query",
    "read_levels",
    "score_rankings",
    "summarize",
]
