"""A small residual network for tiny images, trained from scratch in about a minute on two cores."""

from __future__ import annotations

import keras
from keras import layers


def build_small_cnn(name: str, *, width: int = 32, blocks: int = 1) -> keras.Model:
    """A residual network of three stages, each half as large and twice as wide as the one before.

    The residual block is that of He et al. 2016 (https://arxiv.org/abs/1512.03385, section 4.2)
    with the pooled shortcut of He et al. 2019 (https://arxiv.org/abs/1812.01187, ResNet-D).
    308,704 parameters by default.

    Args:
        name: name of the model.
        width: channels of the first stage; the feature map has 4 * width.
        blocks: residual blocks in each stage.

    Returns:
        A functional model with random weights: float images (B, H, W, 3) in [-1, 1] -> feature map
        (B, H / 4, W / 4, 4 * width), both rounded up.

    Raises:
        ValueError: width or blocks below 1.

    Example:
        >>> build_small_cnn("small", width=8).output_shape
        (None, None, None, 32)
    """
    if blocks < 1:
        raise ValueError(f"blocks must be at least 1, got {blocks}")
    images = keras.Input((None, None, 3), name="image")
    x = _convolution(images, width, "stem")
    for stage in range(3):
        for block in range(blocks):
            stride = 2 if stage > 0 and block == 0 else 1
            x = _residual_block(x, width * 2**stage, stride, f"stage{stage + 1}_block{block + 1}")
    return keras.Model(images, x, name=name)


def _residual_block(x: keras.KerasTensor, width: int, stride: int, name: str) -> keras.KerasTensor:
    shortcut = x
    if stride > 1:
        pool = layers.AveragePooling2D(stride, padding="same", name=f"{name}_shortcut_pool")
        shortcut = _convolution(pool(x), width, f"{name}_shortcut", size=1, relu=False)
    x = _convolution(x, width, f"{name}_first", stride=stride)
    x = _convolution(x, width, f"{name}_second", relu=False)
    return layers.ReLU(name=f"{name}_relu")(layers.Add(name=f"{name}_add")([x, shortcut]))


def _convolution(
    x: keras.KerasTensor,
    width: int,
    name: str,
    *,
    size: int = 3,
    stride: int = 1,
    relu: bool = True,
) -> keras.KerasTensor:
    x = layers.Conv2D(
        width,
        size,
        strides=stride,
        padding="same",
        use_bias=False,
        kernel_initializer="he_normal",
        name=name,
    )(x)
    # The default momentum of .99 needs hundreds of steps, more than an epoch of a small set.
    x = layers.BatchNormalization(momentum=0.9, name=f"{name}_norm")(x)
    return layers.ReLU(name=f"{name}_relu")(x) if relu else x
