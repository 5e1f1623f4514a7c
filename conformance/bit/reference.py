"""Record the feature maps of transformers' BitModel with random weights in the official layout.

    python conformance/bit/reference.py OUT.npz 64x64 33x70 ...

Runs in an environment made from requirements.txt beside it, without TensorFlow and without
cbir_tf. OUT.npz gets one feature map (rows, columns, 2048) for each HEIGHTxWIDTH given, computed
in float64, so that it is free of rounding errors, and kept as float32.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import torch
from official_layout import UNITS, random_image, random_weights
from transformers import BitConfig, BitModel
from transformers.models.bit.modeling_bit import WeightStandardizedConv2d


def reference_model(weights: dict[str, np.ndarray]) -> BitModel:
    """BitModel in float64 with the official weights; every one of its parameters is given."""
    model = BitModel(BitConfig()).eval()
    for module in model.modules():
        if isinstance(module, WeightStandardizedConv2d):
            module.eps = 1e-10  # BitModel's own is 1e-8; big_transfer's is 1e-10
    state = {
        "embedder.convolution.weight": _kernel(weights, "root_block"),
        **_group_norm(weights, "", "norm"),
    }
    for stage, (block, units) in enumerate(UNITS.items()):
        for unit in range(units):
            official = f"{block}/unit{unit + 1:02d}"
            ours = f"encoder.stages.{stage}.layers.{unit}"
            for number, letter in enumerate("abc", 1):
                place = f"{official}/{letter}"
                state[f"{ours}.conv{number}.weight"] = _kernel(weights, place)
                state |= _group_norm(weights, f"{place}/", f"{ours}.norm{number}")
            if unit == 0:
                state[f"{ours}.downsample.conv.weight"] = _kernel(weights, f"{official}/a/proj")
    model.load_state_dict(state, strict=True)
    return model.double()


def _kernel(weights: dict[str, np.ndarray], place: str) -> torch.Tensor:
    kernel = weights[f"resnet/{place}/standardized_conv2d/kernel"]
    return torch.from_numpy(kernel.transpose(3, 2, 0, 1).copy())


def _group_norm(weights: dict[str, np.ndarray], place: str, name: str) -> dict[str, torch.Tensor]:
    gamma, beta = (weights[f"resnet/{place}group_norm/{each}"] for each in ("gamma", "beta"))
    return {f"{name}.weight": torch.from_numpy(gamma), f"{name}.bias": torch.from_numpy(beta)}


def main(out: str, *sizes: str) -> None:
    """Write the feature maps for these sizes."""
    model = reference_model(random_weights())
    maps = {}
    for size in sizes:
        image = torch.from_numpy(random_image(*map(int, size.split("x"))))
        with torch.inference_mode():
            features = model(image.permute(0, 3, 1, 2).double()).last_hidden_state
        maps[size] = features[0].permute(1, 2, 0).float().numpy()
    Path(out).parent.mkdir(parents=True, exist_ok=True)
    np.savez_compressed(out, **maps)


if __name__ == "__main__":
    main(*sys.argv[1:])
