"""Hyper-parameter tuning: a search space, an Optuna study, and a training for each trial.

from cbir_tf.tuning import tune
"""

from __future__ import annotations

from cbir_tf.tuning.from_config import Tuning, tune

__all__ = ["Tuning", "tune"]
