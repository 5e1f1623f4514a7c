"""Releases of weights: what they are, where they are, and fetching them."""
