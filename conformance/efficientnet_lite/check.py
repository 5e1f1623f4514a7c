"""Compare our EfficientNet-Lite with what reference.py recorded from PyTorch.

    python conformance/efficientnet_lite/check.py OUT.npz

Runs in the environment of cbir_tf with the extra `pretrained`. Every feature, and every pooled
vector of the embedder, which prepares the pixels itself, must lie within 1e-4. Exit status 1 if
not.
"""

from __future__ import annotations

import sys

import numpy as np

from cbir_tf.config.model import Model
from cbir_tf.models import build_embedder

TOLERANCE = 1e-4


def main(recorded: str) -> int:
    """Print the largest differences for every network and size; 0 if all are within tolerance."""
    agreed = True
    with np.load(recorded, allow_pickle=False) as arrays:
        expected = {key: arrays[key] for key in arrays.files}
    embedders = {
        name: build_embedder(
            Model(backbone=name, weights="imagenet", embedding_size=None, normalize=False)
        )
        for name in sorted({key.split("/")[0] for key in expected})
    }
    for key, features in expected.items():
        name, size = key.split("/")
        shape = tuple(map(int, size.split("x")))
        image = np.random.default_rng(shape).integers(0, 256, (1, *shape, 3), dtype=np.uint8)
        backbone = embedders[name].get_layer("backbone")
        found = np.asarray(backbone((image.astype(np.float32) - 127) / 128))[0]
        pooled = embedders[name].predict_on_batch(image)[0]
        apart = np.abs(found - features).max(), np.abs(pooled - features.mean((0, 1))).max()
        agreed &= max(apart) <= TOLERANCE
        print(f"{key}: features {apart[0]:.1e}, pooled {apart[1]:.1e}, allowed {TOLERANCE:.0e}")
    print(f"EfficientNet-Lite and PyTorch's {'agree' if agreed else 'DIFFER'}")
    return 0 if agreed else 1


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
