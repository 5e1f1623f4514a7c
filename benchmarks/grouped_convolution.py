"""Our grouped convolution compared with Keras' own on a CPU, for the 3x3 layers of ResNeXt-50.

    PYTHONPATH=. python benchmarks/grouped_convolution.py [--images 4] [--repeats 3]

Measured are a compiled forward pass, and forward and backward pass together, on float32 feature
maps of the sizes for images of 224 x 224 pixels; the minimum of the repeats after a warm-up call.
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Callable

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
os.environ["CUDA_VISIBLE_DEVICES"] = "-1"

import keras
import numpy as np
import tensorflow as tf

from cbir_tf.models.residual import GroupedConv2D

SIDES_AND_CHANNELS = ((56, 128), (28, 256), (14, 512), (7, 1024))
KINDS = {"ours": GroupedConv2D, "Keras'": keras.layers.Conv2D}


def seconds(call: Callable[[], object], repeats: int) -> float:
    """The minimum time of a call."""
    call()
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        call()
        times.append(time.perf_counter() - start)
    return min(times)


def measure(layer: keras.layers.Conv2D, maps: tf.Tensor, repeats: int) -> tuple[float, float]:
    """Seconds of a forward pass, and of one with its gradients."""

    @tf.function
    def forward() -> tf.Tensor:
        return layer(maps)

    @tf.function
    def both() -> list[tf.Tensor]:
        with tf.GradientTape() as tape:
            tape.watch(maps)
            total = tf.reduce_sum(layer(maps) ** 2)
        return tape.gradient(total, [maps, layer.kernel.value])

    layer.build(maps.shape)
    return seconds(forward, repeats), seconds(both, repeats)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("--images", type=int, default=4)
    parser.add_argument("--repeats", type=int, default=3)
    arguments = parser.parse_args()
    generator = np.random.default_rng(0)
    for side, channels in SIDES_AND_CHANNELS:
        shape = (arguments.images, side, side, channels)
        maps = tf.constant(generator.normal(size=shape).astype("float32"))
        for name, kind in KINDS.items():
            layer = kind(channels, 3, padding="same", groups=32, use_bias=False)
            forward, both = measure(layer, maps, arguments.repeats)
            print(
                f"{side:2} x {side:2}, {channels:4} channels, {name:6}: forward "
                f"{1000 * forward:6.1f} ms, forward and backward {1000 * both:7.1f} ms",
                flush=True,
            )


if __name__ == "__main__":
    main()
