"""Hyper-parameter tuning: a search space, an Optuna study, and a training for each trial."""
