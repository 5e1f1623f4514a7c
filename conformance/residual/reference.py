"""Record what PyTorch makes of random weights of residual networks.

    python conformance/residual/reference.py OUT.npz 64x64 97x131 ...
    python conformance/residual/reference.py --small OUT.npz 33x38

Runs in the environment of conformance/bit/requirements.txt, without TensorFlow and without
cbir_tf. The networks are those of torch_networks.py, into which the weights go by torchvision's
names; where transformers' ResNetModel can be the same network, that is, without groups, the two
must agree. OUT.npz gets the feature map (rows, columns, channels) of each stage and the pooled
vector for each network and HEIGHTxWIDTH, computed in float64, so that they are free of rounding
errors, and kept as float32. --small keeps every fourth channel of the last map alone: what the
tests compare with.
"""

from __future__ import annotations

import argparse
import re
from pathlib import Path

import numpy as np
import torch
from torch_networks import ResidualNetwork
from torchvision_layout import NETWORKS, WIDTHS, normalized, random_image, random_weights
from transformers import ResNetConfig, ResNetModel


def plain_model(name: str) -> ResidualNetwork:
    """The network in plain PyTorch; the random weights are all of its state."""
    model = ResidualNetwork(NETWORKS[name]).eval()
    state = {key: torch.from_numpy(each) for key, each in random_weights(NETWORKS[name]).items()}
    model.load_state_dict(state, strict=True)
    return model.double()


def transformers_model(name: str) -> ResNetModel:
    """transformers' network; the random weights but the classifier's are all of its state."""
    network = NETWORKS[name]
    config = ResNetConfig(
        hidden_sizes=[width * network.expansion for width in WIDTHS],
        depths=list(network.blocks),
        layer_type="basic" if network.expansion == 1 else "bottleneck",
        downsample_in_bottleneck=False,
    )
    model = ResNetModel(config).eval()
    state = {
        _transformers_name(key): torch.from_numpy(each)
        for key, each in random_weights(NETWORKS[name]).items()
        if not key.startswith("fc.")
    }
    model.load_state_dict(state, strict=True)
    return model.double()


def _transformers_name(key: str) -> str:
    """`layer2.0.bn1.bias` is `encoder.stages.1.layers.0.layer.0.normalization.bias`."""
    module, tensor = key.rsplit(".", 1)
    kind = "convolution" if re.search(r"conv\d$|downsample\.0$", module) else "normalization"
    if "." not in module:
        return f"embedder.embedder.{kind}.{tensor}"
    stage, block, step = module.removeprefix("layer").split(".", 2)
    place = "shortcut" if step.startswith("downsample") else f"layer.{int(step[-1]) - 1}"
    return f"encoder.stages.{int(stage) - 1}.layers.{block}.{place}.{kind}.{tensor}"


def feature_maps(name: str, sizes: list[str]) -> dict[str, dict[str, np.ndarray]]:
    """By size: the maps layer1, ..., layer4 and the vector pooled, float64."""
    plain = plain_model(name)
    other = transformers_model(name) if NETWORKS[name].groups == 1 else None
    by_size = {}
    for size in sizes:
        pixels = normalized(random_image(*map(int, size.split("x"))))
        images = torch.from_numpy(pixels).permute(0, 3, 1, 2)
        with torch.inference_mode():
            maps = plain(images)
            if other is not None:
                theirs = other(images, output_hidden_states=True).hidden_states[1:]
                apart = [float((a - b).abs().max()) for a, b in zip(maps, theirs, strict=True)]
                print(f"{name} {size}: transformers' ResNetModel differs by {max(apart):.1e}")
                if max(apart) > 1e-9:
                    raise SystemExit("the references disagree")
        by_size[size] = {
            f"layer{stage}": each[0].permute(1, 2, 0).numpy() for stage, each in enumerate(maps, 1)
        } | {"pooled": maps[-1].mean((2, 3))[0].numpy()}
    return by_size


def main() -> None:
    """Write the feature maps of every network for the sizes given."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("--small", action="store_true")
    parser.add_argument("out", type=Path)
    parser.add_argument("sizes", nargs="+", metavar="HEIGHTxWIDTH")
    arguments = parser.parse_args()
    recorded = {}
    for name in NETWORKS:
        for size, arrays in feature_maps(name, arguments.sizes).items():
            if arguments.small:
                arrays = {"layer4": arrays["layer4"][..., ::4]}  # noqa: PLW2901
            for key, array in arrays.items():
                recorded[f"{name}/{size}/{key}"] = array.astype(np.float32)
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    np.savez_compressed(arguments.out, **recorded)


if __name__ == "__main__":
    main()
