"""Hyper-parameter search: the space of configurations, and the study of the trials."""
