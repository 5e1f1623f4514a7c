"""Compare our residual networks with what reference.py recorded from PyTorch.

    python conformance/residual/check.py OUT.npz

Runs in the environment of cbir_tf, with safetensors. The same random weights travel through a
.safetensors file in torchvision's layout. In float64 the two must be the same function after each
stage, to the 1e-6 that the recorded float32 can tell; in float32, as it is used, every feature must
lie within 1e-4, and so must the pooled vectors of the embedder, which normalises the pixels
itself; each relative to the expected where that exceeds 1. Exit status 1 if not.
"""

from __future__ import annotations

import re
import sys
import tempfile
from pathlib import Path

import keras
import numpy as np
from safetensors.numpy import save_file
from torchvision_layout import NETWORKS, normalized, random_image, random_weights

from cbir_tf.config import model as config_model
from cbir_tf.models import build_embedder

TOLERANCES = {"float64": 1e-6, "float32": 1e-4}
Recorded = dict[str, dict[str, np.ndarray]]


def embedder_with(file: Path, name: str, dtype: str) -> keras.Model:
    """Our network of this precision with the weights of the file, average pooled."""
    keras.config.set_dtype_policy(dtype)
    settings = config_model.Model(
        backbone=name, weights=str(file), embedding_size=None, normalize=False
    )
    return build_embedder(settings)


def stages_of(backbone: keras.Model) -> keras.Model:
    """From an image to the feature maps after the four stages."""
    ends: dict[str, keras.KerasTensor] = {}
    for layer in backbone.layers:
        place = re.fullmatch(r"(layer\d)\.\d+\.relu", layer.name)
        if place:
            ends[place[1]] = layer.output
    return keras.Model(backbone.input, ends)


def differences(
    embedder: keras.Model, size: str, expected: dict[str, np.ndarray]
) -> dict[str, float]:
    """The largest difference by stage and, in float32 as the embedder works, pooled."""
    image = random_image(*map(int, size.split("x")))
    backbone = embedder.get_layer("backbone")
    maps = stages_of(backbone)(normalized(image).astype(backbone.compute_dtype))
    found = {stage: np.asarray(each)[0] for stage, each in maps.items()}
    if backbone.compute_dtype == "float32":
        found["pooled"] = embedder.predict_on_batch(image)[0]
    return {key: difference(each, expected[key]) for key, each in found.items()}


def difference(actual: np.ndarray, expected: np.ndarray) -> float:
    """The largest difference, relative where the expected exceeds 1."""
    return float((np.abs(actual - expected) / np.maximum(1, np.abs(expected))).max())


def read(recorded: str, name: str) -> Recorded:
    """The recorded feature maps of a network, by size."""
    by_size: Recorded = {}
    with np.load(recorded, allow_pickle=False) as arrays:
        for key in arrays.files:
            network, size, part = key.split("/")
            if network == name:
                by_size.setdefault(size, {})[part] = arrays[key]
    return by_size


def main(recorded: str) -> int:
    """Print the largest differences for every network and size; 0 if all are within tolerance."""
    agreed = True
    for name in NETWORKS:
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder) / f"{name}.safetensors"
            save_file(random_weights(NETWORKS[name]), file)
            for dtype, tolerance in TOLERANCES.items():
                embedder = embedder_with(file, name, dtype)
                for size, expected in read(recorded, name).items():
                    apart = differences(embedder, size, expected)
                    agreed &= max(apart.values()) <= tolerance
                    listed = ", ".join(f"{key} {each:.1e}" for key, each in apart.items())
                    print(f"{name} {dtype} {size}: {listed}, allowed {tolerance:.0e}")
    print(f"the residual networks and PyTorch's {'agree' if agreed else 'DIFFER'}")
    return 0 if agreed else 1


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
