"""PyTorch's weights: .safetensors files in the layout of torchvision and timm."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterable, Mapping
from pathlib import Path

import keras

from cbir_tf.errors import UserError, first_line

# PyTorch's names of the variables of Keras' convolutions and batch normalisations.
TENSORS = {
    "kernel": "weight",
    "gamma": "weight",
    "beta": "bias",
    "moving_mean": "running_mean",
    "moving_variance": "running_var",
}
CLASSIFIER = ("fc.weight", "fc.bias")
FLOATS = ("F16", "BF16", "F32", "F64")
PICKLES = (".pth", ".pt", ".bin", ".ckpt", ".pkl", ".tar")
NOT_THESE = "are these the weights of this backbone, as torchvision and timm name them?"


def load_pytorch_weights(model: keras.Model, source: str | Path) -> None:
    """Give a model the tensors of a .safetensors file; all of them, or none and an error.

    A layer `layer1.0.conv1` gets `layer1.0.conv1.weight`, and so on. Of the file's tensors only
    the classifier's, and the counts of batches that batch normalisation keeps, may be left over.

    Args:
        model: whose layers with weights are convolutions without bias and batch normalisations.
        source: path of the file; float16 and bfloat16 become the model's float32.

    Raises:
        UserError: the file is missing, damaged or a pickle, lacks a tensor, has one too many or
            one of another shape; or the package safetensors is not installed.
    """
    path = Path(source)
    _check_kind(path)
    try:
        from safetensors import SafetensorError, safe_open
    except ImportError:
        raise UserError(
            f"{path}: safetensors is not installed; pip install 'cbir-tf[safetensors]'"
        ) from None
    variables = _variables(model)
    try:
        with safe_open(path, framework="numpy") as file:
            slices = {name: file.get_slice(name) for name in file.keys()}  # noqa: SIM118
            found = {name: (each.get_dtype(), each.get_shape()) for name, each in slices.items()}
            _check_tensors(found, variables, path)
            arrays = {name: file.get_tensor(name) for name in variables}
    except (SafetensorError, OSError) as error:
        raise UserError(
            f"{path}: not a .safetensors file, or damaged ({first_line(error)}); fetch it again"
        ) from None
    for name, variable in variables.items():
        array = arrays[name].astype(variable.dtype)
        variable.assign(array.transpose(2, 3, 1, 0) if array.ndim == 4 else array)


def _check_kind(path: Path) -> None:
    if not path.is_file():
        raise UserError(
            f"model.weights: no file {str(path)!r}; give the path of a .safetensors or "
            ".weights.h5 file, or null for random weights"
        )
    if path.suffix in PICKLES:
        names = json.dumps(str(path)), json.dumps(str(path.with_suffix(".safetensors")))
        program = (
            "import torch; from safetensors.torch import save_file; "
            f"save_file(torch.load({names[0]}, weights_only=True), {names[1]})"
        )
        raise UserError(
            f"{path}: PyTorch's pickles are not read, as they can run any program; convert it "
            f"where torch and safetensors are installed: python -c {shlex.quote(program)}"
        )
    if path.suffix != ".safetensors":
        raise UserError(
            f"{path}: weights of this backbone are read from .safetensors, .weights.h5, .h5 and "
            ".keras files"
        )


def _variables(model: keras.Model) -> dict[str, keras.Variable]:
    """The model's variables by the names of PyTorch's tensors."""
    return {
        f"{layer.name}.{TENSORS[variable.name]}": variable
        for layer in model.layers
        for variable in layer.weights
    }


def _check_tensors(
    found: Mapping[str, tuple[str, list[int]]], variables: Mapping[str, keras.Variable], path: Path
) -> None:
    """Each variable has its tensor, of its shape, and no tensor is left over."""
    missing = [name for name in variables if name not in found]
    over = [name for name in found if name not in variables and not _is_left_out(name)]
    if missing or over:
        lacks = [f"lacks {_some(missing)}"] if missing else []
        has = [f"has unknown {_some(over)}"] if over else []
        raise UserError(f"{path}: {' and '.join(lacks + has)}; {NOT_THESE}")
    for name, variable in variables.items():
        expected = _pytorch_shape(variable.shape)
        dtype, shape = found[name]
        if tuple(shape) != expected or dtype not in FLOATS:
            raise UserError(
                f"{path}: {name!r}: expected floats of shape {expected}, found {dtype} of shape "
                f"{tuple(shape)}; {NOT_THESE}"
            )


def _is_left_out(name: str) -> bool:
    return name in CLASSIFIER or name.endswith(".num_batches_tracked")


def _pytorch_shape(shape: tuple[int, ...]) -> tuple[int, ...]:
    """Of a kernel (height, width, inputs, outputs) PyTorch's (outputs, inputs, height, width)."""
    return (shape[3], shape[2], *shape[:2]) if len(shape) == 4 else tuple(shape)


def _some(names: Iterable[str]) -> str:
    first, *others = names
    return f"{first!r} and {len(others)} more" if others else repr(first)
