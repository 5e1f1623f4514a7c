"""A small DenseNet for pictures of 32 pixels and up, to train from scratch."""

from __future__ import annotations

import keras
from keras import layers


def build_mini_densenet(name: str, *, growth: int = 12, layers_per_block: int = 6) -> keras.Model:
    """DenseNet-BC of three dense blocks, as for CIFAR in Huang et al. 2017.

    https://arxiv.org/abs/1608.06993, sections 3 and 4.2: bottlenecks of 4 * growth channels,
    transitions that halve the channels. The default is DenseNet-BC-40 (k = 12): 176,122 trainable
    parameters with a classifier of 10 classes.

    Args:
        name: name of the model.
        growth: channels that each layer adds (k).
        layers_per_block: layers of a 1x1 and a 3x3 convolution each; the network has a depth of
            6 * layers_per_block + 4.

    Returns:
        A functional model with random weights: float images (B, H, W, 3) in [-1, 1] -> feature map
        (B, H / 4, W / 4, C), both rounded up; C is 132 by default.

    Raises:
        ValueError: growth or layers_per_block below 1.

    Example:
        >>> build_mini_densenet("small", growth=4, layers_per_block=2).output_shape
        (None, None, None, 16)
    """
    if growth < 1 or layers_per_block < 1:
        raise ValueError(
            f"growth and layers_per_block must be at least 1, got {growth} and {layers_per_block}"
        )
    images = keras.Input((None, None, 3), name="image")
    x = _convolution(images, 2 * growth, 3, "stem")
    for block in range(1, 4):
        for layer in range(1, layers_per_block + 1):
            x = _dense_layer(x, growth, f"block{block}_layer{layer}")
        if block < 3:
            x = _transition(x, f"transition{block}")
    return keras.Model(images, _normalized_relu(x, "last"), name=name)


def _dense_layer(x: keras.KerasTensor, growth: int, name: str) -> keras.KerasTensor:
    new = _convolution(_normalized_relu(x, f"{name}_first"), 4 * growth, 1, f"{name}_first")
    new = _convolution(_normalized_relu(new, f"{name}_second"), growth, 3, f"{name}_second")
    return layers.Concatenate(name=f"{name}_concatenate")([x, new])


def _transition(x: keras.KerasTensor, name: str) -> keras.KerasTensor:
    x = _convolution(_normalized_relu(x, name), x.shape[-1] // 2, 1, name)
    return layers.AveragePooling2D(2, padding="same", name=f"{name}_pool")(x)


def _normalized_relu(x: keras.KerasTensor, name: str) -> keras.KerasTensor:
    # The default momentum of .99 needs hundreds of steps, more than an epoch of a small set.
    x = layers.BatchNormalization(momentum=0.9, epsilon=1e-5, name=f"{name}_norm")(x)
    return layers.ReLU(name=f"{name}_relu")(x)


def _convolution(x: keras.KerasTensor, filters: int, size: int, name: str) -> keras.KerasTensor:
    return layers.Conv2D(
        filters,
        size,
        padding="same",
        use_bias=False,
        kernel_initializer="he_normal",
        name=name,
    )(x)
