"""PyTorch's weights: .safetensors files and pickles of state dictionaries."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

import keras
import numpy as np

from cbir_tf.errors import UserError, first_line
from cbir_tf.models.pytorch_pickle import read_state_dict

# PyTorch's names of the variables of Keras' convolutions and batch normalisations.
TENSORS = {
    "kernel": "weight",
    "gamma": "weight",
    "beta": "bias",
    "moving_mean": "running_mean",
    "moving_variance": "running_var",
}
CLASSIFIER = ("fc.weight", "fc.bias", "classifier.weight", "classifier.bias")
FLOATS = ("float16", "bfloat16", "float32", "float64")
PICKLES = (".pth", ".pt", ".bin")
NOT_THESE = "are these the weights of this backbone, as torchvision and timm name them?"


def load_pytorch_weights(
    model: keras.Model, source: str | Path, renamed: Callable[[str], str] = str
) -> None:
    """Give a model the tensors of a file; all of them, or none and an error.

    A layer `layer1.0.conv1` gets `layer1.0.conv1.weight`, and so on. Of the file's tensors only
    the classifier's, and the counts of batches that batch normalisation keeps, may be left over.

    Args:
        model: whose layers with weights are convolutions without bias and batch normalisations.
        source: path of a .safetensors file, or of what `torch.save(model.state_dict(), ...)` wrote;
            float16 and bfloat16 become the model's float32.
        renamed: gives the name by this model's layers of a tensor of the file.

    Raises:
        UserError: the file is missing or damaged, holds something else than tensors, lacks one,
            has one too many or one of another shape; or the package safetensors is not installed.
    """
    path = Path(source)
    stored = {renamed(name): (name, array) for name, array in _read(path).items()}
    variables = _variables(model)
    missing = [name for name in variables if name not in stored]
    over = [was for name, (was, _) in stored.items() if name not in variables and _is_used(name)]
    if missing or over:
        lacks = [f"lacks {_some(missing)}"] if missing else []
        has = [f"has unknown {_some(over)}"] if over else []
        raise UserError(f"{path}: {' and '.join(lacks + has)}; {NOT_THESE}")
    arrays = {
        name: _in_keras_layout(path, *stored[name], variable, is_depthwise)
        for name, (variable, is_depthwise) in variables.items()
    }
    for name, (variable, _) in variables.items():
        variable.assign(arrays[name])


def _read(path: Path) -> Mapping[str, np.ndarray]:
    if not path.is_file():
        raise UserError(
            f"model.weights: no file {str(path)!r}; give the path of a .safetensors, .pth or "
            ".weights.h5 file, or null for random weights"
        )
    if path.suffix in PICKLES:
        return read_state_dict(path)
    if path.suffix != ".safetensors":
        raise UserError(
            f"{path}: not a file of weights of this backbone; give a .safetensors, .pth, "
            ".weights.h5, .h5 or .keras file"
        )
    try:
        from safetensors import SafetensorError
        from safetensors.numpy import load_file
    except ImportError:
        raise UserError(
            f"{path}: safetensors is not installed; pip install 'cbir-tf[safetensors]'"
        ) from None
    try:
        return load_file(path)
    except (SafetensorError, OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(
            f"{path}: not a .safetensors file, or damaged ({first_line(error)}); fetch it again"
        ) from None


def _variables(model: keras.Model) -> dict[str, tuple[keras.Variable, bool]]:
    """The model's variables by the names of PyTorch's tensors; whether of depthwise convolutions.

    (In Keras their kernels are (height, width, channels, 1).)
    """
    depthwise = keras.layers.DepthwiseConv2D
    return {
        f"{layer.name}.{TENSORS[variable.name]}": (variable, isinstance(layer, depthwise))
        for layer in model.layers
        for variable in layer.weights
    }


def _in_keras_layout(
    path: Path, name: str, array: np.ndarray, variable: keras.Variable, is_depthwise: bool
) -> np.ndarray:
    """A kernel (outputs, inputs, height, width) as (height, width, inputs, outputs).

    Raises:
        UserError: not floats of the variable's shape.
    """
    axes = (2, 3, 0, 1) if is_depthwise else (2, 3, 1, 0)
    shape = tuple(variable.shape)
    turned = array.transpose(axes) if array.ndim == 4 else array
    if turned.shape != shape or array.dtype.name not in FLOATS:
        expected = tuple(shape[axes.index(axis)] for axis in range(4)) if len(shape) == 4 else shape
        raise UserError(
            f"{path}: {name!r}: expected floats of shape {expected}, found {array.dtype} of shape "
            f"{array.shape}; {NOT_THESE}"
        )
    return turned.astype(variable.dtype)


def _is_used(name: str) -> bool:
    return name not in CLASSIFIER and not name.endswith(".num_batches_tracked")


def _some(names: Iterable[str]) -> str:
    first, *others = names
    return f"{first!r} and {len(others)} more" if others else repr(first)
