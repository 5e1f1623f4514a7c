"""Retrieval metrics with intervals, by class and by level, and what a search confuses."""

from __future__ import annotations

from cbir_tf.evaluation.bootstrap import Difference, bootstrap_intervals, paired_bootstrap
from cbir_tf.evaluation.centroids import nearest_centroid
from cbir_tf.evaluation.confusion import Mistake, confusion_matrix, mistakes
from cbir_tf.evaluation.label_sets import LabelSets
from cbir_tf.evaluation.levels import evaluate_levels, read_levels
from cbir_tf.evaluation.metrics import evaluate, figures_to_r, per_query, summarize
from cbir_tf.evaluation.rankings import (
    average_precision,
    map_at_r,
    ndcg,
    normalized_gain,
    precision_at_k,
    r_precision,
    recall_at_k,
    reciprocal_rank,
    score_rankings,
)
from cbir_tf.evaluation.table import format_accuracy, format_classes, format_table

__all__ = [
    "Difference",
    "LabelSets",
    "Mistake",
    "average_precision",
    "bootstrap_intervals",
    "confusion_matrix",
    "evaluate",
    "evaluate_levels",
    "figures_to_r",
    "format_accuracy",
    "format_classes",
    "format_table",
    "map_at_r",
    "mistakes",
    "ndcg",
    "nearest_centroid",
    "normalized_gain",
    "paired_bootstrap",
    "per_query",
    "precision_at_k",
    "r_precision",
    "read_levels",
    "recall_at_k",
    "reciprocal_rank",
    "score_rankings",
    "summarize",
]
