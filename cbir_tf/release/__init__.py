"""Releases of weights: packing a run, the model card, checking, publishing, exporting."""
