"""BiT-M R50x1: a ResNet-50 v2 with group normalisation and standardised convolutions.

Big Transfer, https://arxiv.org/abs/1912.11370; defined by and weights from
https://github.com/google-research/big_transfer. Layers carry the official names with dots for
slashes: `block1.unit01.a.group_norm` holds `resnet/block1/unit01/a/group_norm/gamma` and `beta`.
"""

from __future__ import annotations

import re
import struct
import tokenize
import warnings
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import keras
import numpy as np
from keras import layers, ops

from cbir_tf.errors import UserError, first_line

UNITS = (3, 4, 6, 3)
IMAGENET21K = "https://tfhub.dev/google/bit/m-r50x1/1"
NPZ_HINT = "give the path of BiT-M-R50x1.npz (https://github.com/google-research/big_transfer)"
# What zipfile and NumPy can raise for an archive with a few bytes changed.
DAMAGE = (
    OSError,
    EOFError,
    ValueError,
    RuntimeError,
    MemoryError,
    SyntaxError,
    struct.error,
    tokenize.TokenError,
    zipfile.BadZipFile,
    zlib.error,
)
NOT_BIT = f"these are not the weights of BiT R50x1; {NPZ_HINT}"


# --- the network --------------------------------------------------------------------------------


@keras.saving.register_keras_serializable(package="cbir_tf")
class StandardizedConv2D(layers.Conv2D):  # type: ignore[misc]  # Keras has no type hints
    """A convolution whose kernel is shifted and scaled to mean 0, variance 1 for each filter.

    The kernel is stored as trained and standardised at every call, so that it can be trained on:
    weight standardisation, https://arxiv.org/abs/1903.10520, with BiT's variance + 1e-10.
    """

    def call(self, inputs: keras.KerasTensor) -> keras.KerasTensor:
        # At least float32: half precision cannot hold the 1e-10.
        precision = keras.backend.result_type(self.compute_dtype, "float32")
        kernel = ops.cast(self.kernel, precision)
        centered = kernel - ops.mean(kernel, axis=(0, 1, 2), keepdims=True)
        variance = ops.mean(ops.square(centered), axis=(0, 1, 2), keepdims=True)
        standardized = centered * ops.rsqrt(variance + 1e-10)
        return self.convolution_op(inputs, ops.cast(standardized, self.compute_dtype))


def build_bit_r50x1(name: str) -> keras.Model:
    """BiT R50x1 without its classifier: Kolesnikov et al. 2020, https://arxiv.org/abs/1912.11370.

    23,500,352 parameters.

    Args:
        name: name of the model.

    Returns:
        A functional model with random weights: float images (B, H, W, 3) in [-1, 1] -> feature map
        (B, H / 32, W / 32, 2048), both rounded up, not negative.
    """
    images = keras.Input((None, None, 3), name="images")
    # Zeros in place of the -inf of "same" pooling: the official root pads before both steps.
    x = _convolution(images, 64, 7, "root_block", stride=2)
    x = layers.ZeroPadding2D(1, name="root_block.pad")(x)
    x = layers.MaxPooling2D(3, strides=2, name="root_block.pool")(x)
    for block, units in enumerate(UNITS, 1):
        for unit in range(1, units + 1):
            stride = 2 if unit == 1 and block > 1 else 1
            x = _bottleneck(x, 32 * 2**block, stride, f"block{block}.unit{unit:02}")
    return keras.Model(images, _normalized_relu(x, ""), name=name)


def _bottleneck(x: keras.KerasTensor, filters: int, stride: int, name: str) -> keras.KerasTensor:
    """A pre-activation unit; the projected shortcut starts from the activation."""
    activated = _normalized_relu(x, f"{name}.a.")
    if stride > 1 or x.shape[-1] != 4 * filters:
        x = _convolution(activated, 4 * filters, 1, f"{name}.a.proj", stride)
    branch = _convolution(activated, filters, 1, f"{name}.a")
    branch = _normalized_relu(branch, f"{name}.b.")
    branch = _convolution(branch, filters, 3, f"{name}.b", stride)
    branch = _normalized_relu(branch, f"{name}.c.")
    branch = _convolution(branch, 4 * filters, 1, f"{name}.c")
    return layers.Add(name=f"{name}.add")([x, branch])


def _normalized_relu(x: keras.KerasTensor, prefix: str) -> keras.KerasTensor:
    x = layers.GroupNormalization(32, epsilon=1e-5, name=f"{prefix}group_norm")(x)
    return layers.ReLU(name=f"{prefix}relu")(x)


def _convolution(
    x: keras.KerasTensor, filters: int, size: int, name: str, stride: int = 1
) -> keras.KerasTensor:
    """Padding depends on the kernel alone, where "same" would depend on the image's size too."""
    if size > 1:
        x = layers.ZeroPadding2D(size // 2, name=f"{name}.convolution_pad")(x)
    return StandardizedConv2D(
        filters, size, strides=stride, use_bias=False, name=f"{name}.standardized_conv2d"
    )(x)


# --- its weights --------------------------------------------------------------------------------


def load_bit_weights(model: keras.Model, source: str | Path) -> None:
    """Give the model official weights; all of them, or none and an error.

    Args:
        model: made by `build_bit_r50x1`.
        source: an official .npz file; a SavedModel's folder; a TensorFlow Hub handle, fetched
            into TFHUB_CACHE_DIR; or imagenet21k for the handle of BiT-M R50x1. The classification
            head, where there is one, is ignored.

    Raises:
        UserError: the source could not be fetched or read, lacks a weight, or has one of another
            shape.
    """
    if str(source).endswith(".npz"):
        arrays = _read_npz(Path(source), model)
    else:
        arrays = _read_saved_model(str(source), model)
    for key, weight in _official_weights(model).items():
        weight.assign(arrays[key])


def load_bit_imagenet21k(model: keras.Model, _options: Mapping[str, Any]) -> None:
    """Give the model the weights of BiT-M, trained on ImageNet-21k, downloaded once.

    Raises:
        UserError: as `load_bit_weights`.
    """
    load_bit_weights(model, "imagenet21k")


def _official_weights(model: keras.Model) -> dict[str, keras.Variable]:
    """The model's variables by official name, without the leading resnet/."""
    return {
        f"{layer.name.replace('.', '/')}/{weight.name}": weight
        for layer in model.layers
        for weight in layer.weights
    }


def _read_npz(path: Path, model: keras.Model) -> dict[str, np.ndarray]:
    if not path.is_file():
        raise UserError(f"{path}: no such file; {NPZ_HINT}")
    if not zipfile.is_zipfile(path):
        raise UserError(f"{path}: not an .npz archive, or cut short; {NPZ_HINT}")
    try:
        with np.load(path, allow_pickle=False) as archive:
            return _select(archive, model, str(path))
    except DAMAGE as error:
        raise UserError(f"{path}: damaged: {first_line(error)}; {NPZ_HINT}") from None


def _read_saved_model(source: str, model: keras.Model) -> dict[str, np.ndarray]:
    import tensorflow as tf

    with warnings.catch_warnings(action="ignore"):  # of pkg_resources, which it imports
        import tensorflow_hub

    handle = IMAGENET21K if source == "imagenet21k" else source
    try:
        folder = tensorflow_hub.resolve(handle)
    except (OSError, ValueError, RuntimeError, tf.errors.OpError) as error:
        raise UserError(
            f"{handle}: could not be fetched: {first_line(error)}; {NPZ_HINT}"
        ) from None
    try:
        loaded = tf.saved_model.load(folder)
    except (OSError, ValueError, RuntimeError, tf.errors.OpError) as error:
        raise UserError(f"{folder}: not a SavedModel: {first_line(error)}; {NPZ_HINT}") from None
    variables = {
        each.name: each
        for each in tf.train.TrackableView(loaded).descendants()
        if isinstance(each, tf.Variable)
    }
    return _select(variables, model, handle)


def _select(found: Mapping[str, Any], model: keras.Model, source: str) -> dict[str, np.ndarray]:
    """The arrays the model needs, by its names, from a mapping with the official names.

    Names may end in :0, start with any prefix, and number their convolutions, as some of the
    official files do: `resnet/block1/unit01/a/standardized_conv2d_3/kernel`.
    """
    plain = {
        re.sub(r"/standardized_conv2d_\d+/", "/standardized_conv2d/", name.removesuffix(":0")): name
        for name in found
    }
    root = "root_block/standardized_conv2d/kernel"
    prefix = next((each.removesuffix(root) for each in plain if each.endswith(root)), "resnet/")
    arrays = {}
    for key, weight in _official_weights(model).items():
        official = prefix + key
        if official not in plain:
            raise UserError(f"{source}: no {official!r} of shape {weight.shape}; {NOT_BIT}")
        array = np.asarray(found[plain[official]])
        squeezed = array.reshape(-1) if len(weight.shape) == 1 else array
        if squeezed.shape != weight.shape or array.dtype.kind != "f":
            raise UserError(
                f"{source}: {official!r}: expected floats of shape {weight.shape}, found "
                f"{array.dtype} of shape {array.shape}; {NOT_BIT}"
            )
        arrays[key] = squeezed
    return arrays
