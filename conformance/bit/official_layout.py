"""Random weights in the layout of the official BiT-M-R50x1.npz, and images to try them on.

Needs NumPy alone: it runs in the environments of both implementations, and in the tests. The
names and shapes follow https://github.com/google-research/big_transfer (bit_pytorch/models.py).
"""

from __future__ import annotations

import numpy as np

UNITS = {"block1": 3, "block2": 4, "block3": 6, "block4": 3}


def kernel_shapes() -> dict[str, tuple[int, int, int, int]]:
    """Shape (height, width, inputs, outputs) of every kernel before the head, by official name."""
    shapes = {"resnet/root_block/standardized_conv2d/kernel": (7, 7, 3, 64)}
    channels = 64
    for block, width in zip(UNITS, (64, 128, 256, 512), strict=True):
        for unit in range(1, UNITS[block] + 1):
            place = f"resnet/{block}/unit{unit:02d}"
            if unit == 1:
                shapes[f"{place}/a/proj/standardized_conv2d/kernel"] = (1, 1, channels, 4 * width)
            shapes[f"{place}/a/standardized_conv2d/kernel"] = (1, 1, channels, width)
            shapes[f"{place}/b/standardized_conv2d/kernel"] = (3, 3, width, width)
            shapes[f"{place}/c/standardized_conv2d/kernel"] = (1, 1, width, 4 * width)
            channels = 4 * width
    return shapes


def random_weights(seed: int = 0) -> dict[str, np.ndarray]:
    """Every weight of BiT R50x1 before its head, float32, by official name.

    Each filter has a mean and a scale of its own, so that leaving out the standardisation, or
    taking it over the wrong axes, changes the features. The last group norm of a unit is scaled
    down: branches smaller than the shortcuts they are added to, as in trained networks, keep
    rounding errors from growing with depth.
    """
    generator = np.random.default_rng(seed)
    weights = {}

    def add_group_norm(name: str, channels: int, scale: float = 1.0) -> None:
        weights[f"{name}/group_norm/gamma"] = scale * generator.uniform(0.5, 1.5, channels)
        weights[f"{name}/group_norm/beta"] = scale * generator.uniform(-0.5, 0.5, channels)

    for name, shape in kernel_shapes().items():
        scale = generator.uniform(0.01, 0.1, shape[-1])
        shift = generator.uniform(-0.05, 0.05, shape[-1])
        weights[name] = generator.standard_normal(shape, np.float32) * scale + shift
        if "unit" in name and "proj" not in name:
            place = name.removesuffix("/standardized_conv2d/kernel")
            add_group_norm(place, shape[2], scale=0.2 if place.endswith("/c") else 1.0)
    add_group_norm("resnet", 2048)
    return {name: values.astype(np.float32) for name, values in weights.items()}


def random_image(height: int, width: int) -> np.ndarray:
    """One image (1, height, width, 3), float32 in [-1, 1]; always the same for a size."""
    generator = np.random.default_rng((height, width))
    return generator.uniform(-1, 1, (1, height, width, 3)).astype(np.float32)
