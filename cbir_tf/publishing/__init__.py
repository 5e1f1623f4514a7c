"""Packing, checking, exporting and publishing releases of weights."""
