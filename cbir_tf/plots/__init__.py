"""Pictures of a run: embedding map, image and neighbour grids, curves, confusion matrix."""
