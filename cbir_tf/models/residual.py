"""ResNet and ResNeXt as PyTorch publishes them: one builder, one table.

| name | parameters | channels |
|:-----|-----------:|---------:|
| resnet18 | 11,186,112 | 512 |
| resnet34 | 21,301,696 | 512 |
| resnet50_v1_5 | 23,561,152 | 2048 |
| resnet101_v1_5 | 42,605,504 | 2048 |
| resnext50_32x4d | 23,048,128 | 2048 |
| resnext101_32x8d | 86,945,216 | 2048 |

He et al. 2016, https://arxiv.org/abs/1512.03385, and Xie et al. 2017,
https://arxiv.org/abs/1611.05431; in a bottleneck the 3x3 convolution has the stride ("v1.5").
Layers have the names of torchvision and timm: `layer1.0.conv1` holds `layer1.0.conv1.weight`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import keras
import numpy as np
from keras import layers, ops

# Channels of a block of GroupedConv2D: 32 trains fastest on a CPU, of 32, 64, 128 and 256, in every
# layer of ResNeXt-50.
BLOCK = 32


@dataclass(frozen=True)
class Architecture:
    """The sizes of a residual network.

    Attributes:
        blocks: number of residual blocks in each stage.
        bottleneck: whether a block has convolutions of 1x1, 3x3, 1x1 with 4 times the channels at
            its end, or of 3x3, 3x3.
        groups: number of groups of the 3x3 convolution of a bottleneck.
        group_width: channels of a group in the first stage; they double from stage to stage.
    """

    blocks: tuple[int, int, int, int]
    bottleneck: bool = True
    groups: int = 1
    group_width: int = 64


ARCHITECTURES = {
    "resnet18": Architecture((2, 2, 2, 2), bottleneck=False),
    "resnet34": Architecture((3, 4, 6, 3), bottleneck=False),
    "resnet50_v1_5": Architecture((3, 4, 6, 3)),
    "resnet101_v1_5": Architecture((3, 4, 23, 3)),
    "resnext50_32x4d": Architecture((3, 4, 6, 3), groups=32, group_width=4),
    "resnext101_32x8d": Architecture((3, 4, 23, 3), groups=32, group_width=8),
}


def build_residual(architecture: Architecture, name: str) -> keras.Model:
    """A residual network without its classifier.

    Args:
        architecture: a value of ARCHITECTURES, or another.
        name: name of the model.

    Returns:
        A functional model with random weights: float RGB images (B, H, W, 3), normalised with
        ImageNet's mean and deviation -> feature map (B, H / 32, W / 32, 512 or 2048), both rounded
        up, not negative. The last layers of the stages are called layer1.1.relu, layer2.1.relu, ...

    Example:
        >>> tiny = Architecture((1, 1, 1, 1), bottleneck=False)
        >>> build_residual(tiny, "tiny").output_shape
        (None, None, None, 512)
    """
    images = keras.Input((None, None, 3), name="images")
    x = _relu(_convolution(images, 64, 7, "conv1", "bn1", stride=2), "relu")
    # Zeros, where PyTorch pads with -inf, give the same maximum as no value is negative.
    x = layers.ZeroPadding2D(1, name="maxpool.pad")(x)
    x = layers.MaxPooling2D(3, strides=2, name="maxpool")(x)
    for stage, blocks in enumerate(architecture.blocks, 1):
        for block in range(blocks):
            stride = 2 if stage > 1 and block == 0 else 1
            x = _residual_block(x, architecture, stage, stride, f"layer{stage}.{block}")
    return keras.Model(images, x, name=name)


def _residual_block(
    x: keras.KerasTensor, architecture: Architecture, stage: int, stride: int, name: str
) -> keras.KerasTensor:
    width = 32 * 2**stage
    filters = 4 * width if architecture.bottleneck else width
    shortcut = x
    if stride > 1 or x.shape[-1] != filters:
        shortcut = _shortcut(x, filters, stride, f"{name}.downsample")
    if architecture.bottleneck:
        groups = architecture.groups
        inner = groups * architecture.group_width * width // 64
        x = _relu(_convolution(x, inner, 1, f"{name}.conv1", f"{name}.bn1"), f"{name}.relu1")
        x = _convolution(x, inner, 3, f"{name}.conv2", f"{name}.bn2", stride, groups)
        x = _convolution(_relu(x, f"{name}.relu2"), filters, 1, f"{name}.conv3", f"{name}.bn3")
    else:
        x = _convolution(x, filters, 3, f"{name}.conv1", f"{name}.bn1", stride)
        x = _convolution(_relu(x, f"{name}.relu1"), filters, 3, f"{name}.conv2", f"{name}.bn2")
    return _relu(layers.Add(name=f"{name}.add")([x, shortcut]), f"{name}.relu")


def _shortcut(x: keras.KerasTensor, filters: int, stride: int, name: str) -> keras.KerasTensor:
    if stride > 1:
        # Every second pixel, then a plain convolution: the same values as a convolution with a
        # stride, whose gradient corrupts memory in TensorFlow 2.21 on a CPU with few channels.
        x = layers.AveragePooling2D(1, strides=stride, name=f"{name}.pool")(x)
    return _convolution(x, filters, 1, f"{name}.0", f"{name}.1")


def _convolution(
    x: keras.KerasTensor,
    filters: int,
    size: int,
    name: str,
    norm: str,
    stride: int = 1,
    groups: int = 1,
) -> keras.KerasTensor:
    """Convolution with equal padding on all sides, and batch normalisation as in PyTorch."""
    if stride > 1:
        # "same" would pad a strided step by the size of the image.
        x = layers.ZeroPadding2D(size // 2, name=f"{name}.pad")(x)
    kind = GroupedConv2D if groups > 1 else layers.Conv2D
    x = kind(
        filters,
        size,
        strides=stride,
        padding="same" if stride == 1 else "valid",
        groups=groups,
        use_bias=False,
        kernel_initializer="he_normal",
        name=name,
    )(x)
    return layers.BatchNormalization(momentum=0.9, epsilon=1e-5, name=norm)(x)


def _relu(x: keras.KerasTensor, name: str) -> keras.KerasTensor:
    return layers.ReLU(name=name)(x)


@keras.saving.register_keras_serializable(package="cbir_tf")
class GroupedConv2D(layers.Conv2D):  # type: ignore[misc]  # Keras has no type hints
    """A grouped convolution that is fast on a CPU too, where TensorFlow's needs seconds a layer.

    With a GPU it is Keras' own. Without, neighbouring groups are joined up to 32 channels, and each
    block is a plain convolution whose kernel is zero between groups: the same values up to
    rounding, and training steps of ResNeXt-50's layers are 44 to 235 times as fast
    (benchmarks/grouped_convolution.py).
    """

    def convolution_op(
        self, inputs: keras.KerasTensor, kernel: keras.KerasTensor
    ) -> keras.KerasTensor:
        """Convolve (B, H, W, C) with a kernel (height, width, C / groups, filters)."""
        convolve = super().convolution_op
        if keras.distribution.list_devices("gpu"):
            return convolve(inputs, kernel)
        width, filters = kernel.shape[2], kernel.shape[3]
        joined = math.gcd(self.groups, max(1, BLOCK // width))
        blocks = self.groups // joined
        within = np.kron(np.eye(joined), np.ones((width, filters // self.groups)))
        dense = ops.tile(kernel, (1, 1, joined, 1)) * ops.cast(
            np.tile(within, (1, blocks)), kernel.dtype
        )
        return ops.concatenate(
            [
                convolve(*each)
                for each in zip(
                    ops.split(inputs, blocks, axis=-1),
                    ops.split(dense, blocks, axis=-1),
                    strict=True,
                )
            ],
            axis=-1,
        )
