"""Random weights of residual networks as torchvision lays them out, and images to try them on.

Needs NumPy alone: it runs in the environments of both implementations, and in the tests. The
names and shapes are those of `state_dict()` of torchvision's, and timm's, models.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

CLASSES = 10
WIDTHS = (64, 128, 256, 512)
# RGB in 0..1, as torchvision's transforms normalise it.
MEAN = (0.485, 0.456, 0.406)
DEVIATION = (0.229, 0.224, 0.225)


@dataclass(frozen=True)
class Network:
    """Blocks of the four stages; factor from a block's width to its outputs; groups."""

    blocks: tuple[int, int, int, int]
    expansion: int = 4
    groups: int = 1
    width_per_group: int = 64

    def inner(self, width: int) -> int:
        """Channels of the 3x3 convolution of a bottleneck."""
        return width * self.width_per_group // 64 * self.groups


NETWORKS = {
    "resnet18": Network((2, 2, 2, 2), expansion=1),
    "resnet34": Network((3, 4, 6, 3), expansion=1),
    "resnet50_v1_5": Network((3, 4, 6, 3)),
    "resnet101_v1_5": Network((3, 4, 23, 3)),
    "resnext50_32x4d": Network((3, 4, 6, 3), groups=32, width_per_group=4),
    "resnext101_32x8d": Network((3, 4, 23, 3), groups=32, width_per_group=8),
}


def kernel_shapes(network: Network) -> dict[str, tuple[int, int, int, int]]:
    """Shape (outputs, inputs of a group, height, width) of each convolution, by its name."""
    shapes = {"conv1": (64, 3, 7, 7)}
    channels = 64
    for stage, (width, blocks) in enumerate(zip(WIDTHS, network.blocks, strict=True), 1):
        outputs, inner = width * network.expansion, network.inner(width)
        for block in range(blocks):
            place = f"layer{stage}.{block}"
            if network.expansion == 1:
                shapes[f"{place}.conv1"] = (width, channels, 3, 3)
                shapes[f"{place}.conv2"] = (width, width, 3, 3)
            else:
                shapes[f"{place}.conv1"] = (inner, channels, 1, 1)
                shapes[f"{place}.conv2"] = (inner, inner // network.groups, 3, 3)
                shapes[f"{place}.conv3"] = (outputs, inner, 1, 1)
            if block == 0 and (stage > 1 or channels != outputs):
                shapes[f"{place}.downsample.0"] = (outputs, channels, 1, 1)
            channels = outputs
    return shapes


def random_weights(network: Network, seed: int = 0) -> dict[str, np.ndarray]:
    """Every tensor of a network by name: float32, and int64 counts of batches.

    The batch normalisation at the end of a block is scaled down: branches smaller than the
    shortcuts they are added to, as in trained networks, keep rounding errors from growing with
    depth.
    """
    generator = np.random.default_rng(seed)
    last = "conv2" if network.expansion == 1 else "conv3"
    tensors: dict[str, np.ndarray] = {}
    for convolution, shape in kernel_shapes(network).items():
        scale = np.sqrt(1 / np.prod(shape[1:])) * generator.uniform(0.5, 1.5, (shape[0], 1, 1, 1))
        tensors[f"{convolution}.weight"] = generator.standard_normal(shape, np.float32) * scale
        norm = convolution.replace("conv", "bn").replace("downsample.0", "downsample.1")
        gain = 0.1 if convolution.endswith(last) else 1.0
        tensors |= {
            f"{norm}.weight": gain * generator.uniform(0.5, 1.5, shape[0]),
            f"{norm}.bias": gain * generator.uniform(-0.5, 0.5, shape[0]),
            f"{norm}.running_mean": generator.uniform(-0.5, 0.5, shape[0]),
            f"{norm}.running_var": generator.uniform(0.5, 2.0, shape[0]),
        }
    features = 512 * network.expansion
    tensors["fc.weight"] = generator.standard_normal((CLASSES, features), np.float32)
    tensors["fc.bias"] = np.zeros(CLASSES)
    counts = {
        norm.replace("running_var", "num_batches_tracked"): np.array(7, np.int64)
        for norm in tensors
        if norm.endswith("running_var")
    }
    return {key: values.astype(np.float32) for key, values in tensors.items()} | counts


def random_image(height: int, width: int) -> np.ndarray:
    """One image (1, height, width, 3), uint8 RGB; always the same for a size."""
    generator = np.random.default_rng((height, width))
    return generator.integers(0, 256, (1, height, width, 3), dtype=np.uint8)


def normalized(image: np.ndarray) -> np.ndarray:
    """float64 pixels as torchvision's ToTensor and Normalize give them, channels still last."""
    return (image / 255 - np.array(MEAN)) / np.array(DEVIATION)
