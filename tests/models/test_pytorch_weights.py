"""Weights from .safetensors files: all tensors are loaded, or a one-line error has the reason."""

from __future__ import annotations

import runpy
import sys
from pathlib import Path

import keras
import ml_dtypes
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from safetensors.numpy import save_file

from cbir_tf.errors import UserError
from cbir_tf.models.backbones import build_backbone
from cbir_tf.models.pytorch_weights import load_pytorch_weights
from cbir_tf.models.residual import Architecture, build_residual

ROOT = Path(__file__).resolve().parents[2]
LAYOUT = runpy.run_path(str(ROOT / "conformance" / "residual" / "torchvision_layout.py"))
SOME_KERNEL = "layer3.0.conv2.weight"

Tensors = dict[str, np.ndarray]


@pytest.fixture(scope="module")
def tensors() -> Tensors:
    return LAYOUT["random_weights"](LAYOUT["Network"]((1, 1, 1, 1), expansion=1))


@pytest.fixture(scope="module")
def model() -> keras.Model:
    """The network that `tensors` are the weights of."""
    return build_residual(Architecture((1, 1, 1, 1), bottleneck=False), "backbone")


@pytest.fixture
def file(tensors, tmp_path) -> Path:
    path = tmp_path / "network.safetensors"
    save_file(tensors, path)
    return path


def refusal(model: keras.Model, source: Path | str) -> str:
    """The error of loading, checked to be one line and to leave the model as it was."""
    before = [np.array(each) for each in model.weights]
    with pytest.raises(UserError) as caught:
        load_pytorch_weights(model, source)
    for old, new in zip(before, model.weights, strict=True):
        np.testing.assert_array_equal(old, new)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def refusal_of(model: keras.Model, tensors: Tensors, folder: Path) -> str:
    """The error of loading a file of these tensors."""
    save_file(tensors, folder / "changed.safetensors")
    message = refusal(model, folder / "changed.safetensors")
    assert message.startswith(f"{folder / 'changed.safetensors'}: ")
    return message


def assert_loaded(model: keras.Model, tensors: Tensors) -> None:
    """Every weight of the model is the tensor of its name, turned from OIHW into HWIO."""
    kinds = ["gamma", "beta", "moving_mean", "moving_variance"]
    for layer in model.layers:
        if isinstance(layer, keras.layers.Conv2D):
            kernel, tensor = np.asarray(layer.kernel), tensors[f"{layer.name}.weight"]
            assert kernel.shape == (*tensor.shape[2:], tensor.shape[1], tensor.shape[0])
            for row, column in np.ndindex(kernel.shape[:2]):
                np.testing.assert_array_equal(kernel[row, column].T, tensor[:, :, row, column])
        elif layer.weights:
            names = ["weight", "bias", "running_mean", "running_var"]
            for kind, name in zip(kinds, names, strict=True):
                np.testing.assert_array_equal(getattr(layer, kind), tensors[f"{layer.name}.{name}"])


# --- what is read -------------------------------------------------------------------------------


def test_every_tensor_finds_its_place(model, tensors, file):
    load_pytorch_weights(model, file)
    assert_loaded(model, tensors)


@pytest.mark.parametrize("left_out", ["fc.", ".num_batches_tracked"])
def test_classifier_and_counts_may_be_missing(model, tensors, tmp_path, left_out):
    some = {name: each for name, each in tensors.items() if left_out not in name}
    assert len(some) < len(tensors)
    save_file(some, tmp_path / "some.safetensors")
    load_pytorch_weights(model, tmp_path / "some.safetensors")
    assert_loaded(model, tensors)


@pytest.mark.parametrize("dtype", [np.float16, ml_dtypes.bfloat16, np.float64])
def test_other_floats_become_float32(model, tensors, tmp_path, dtype):
    other = {name: each.astype(dtype) for name, each in tensors.items() if each.dtype.kind == "f"}
    save_file(other, tmp_path / "other.safetensors")
    load_pytorch_weights(model, tmp_path / "other.safetensors")
    assert_loaded(model, {name: each.astype(np.float32) for name, each in other.items()})


# --- what is not --------------------------------------------------------------------------------


@pytest.mark.parametrize("missing", [SOME_KERNEL, "bn1.running_var", "layer2.0.downsample.1.bias"])
def test_a_missing_tensor_is_named(model, tensors, tmp_path, missing):
    some = {name: each for name, each in tensors.items() if name != missing}
    assert f": lacks '{missing}'; are these" in refusal_of(model, some, tmp_path)


def test_a_tensor_too_many_is_named(model, tensors, tmp_path):
    more = tensors | {"layer1.1.conv1.weight": np.zeros((64, 64, 3, 3), np.float32)}
    message = refusal_of(model, more, tmp_path)
    assert "unknown 'layer1.1.conv1.weight'" in message


def test_differing_tensor_names_are_reported_from_both_sides(model, tensors, tmp_path):
    wrapped = {f"module.{name}": each for name, each in tensors.items()}
    message = refusal_of(model, wrapped, tmp_path)
    assert "lacks 'conv1.weight' and 59 more and has unknown 'module." in message


@pytest.mark.parametrize(
    ("name", "values", "found"),
    [
        (SOME_KERNEL, np.zeros((256, 256, 1, 1), np.float32), "float32 of shape (256, 256, 1, 1)"),
        ("bn1.bias", np.zeros(32, np.float32), "float32 of shape (32,)"),
        ("bn1.bias", np.zeros(64, np.int64), "int64 of shape (64,)"),
    ],
)
def test_another_shape_or_kind_is_named_beside_the_expected_one(
    model, tensors, tmp_path, name, values, found
):
    message = refusal_of(model, tensors | {name: values}, tmp_path)
    assert f"{name!r}: expected floats of shape {tensors[name].shape}, found {found};" in message


@pytest.mark.parametrize("size", [0, 1, 7, 1000, -1])
def test_a_file_cut_short_is_refused(model, file, size):
    file.write_bytes(file.read_bytes()[:size])
    message = refusal(model, file)
    assert message.startswith(f"{file}: not a .safetensors file, or damaged (")
    assert message.endswith("; fetch it again")


@pytest.mark.parametrize("content", [b"<html>404</html>" * 100, b"PK\x03\x04" + bytes(100)])
def test_a_file_of_something_else_is_refused(model, file, content):
    file.write_bytes(content)
    assert f"{file}: not a .safetensors file" in refusal(model, file)


@given(data=st.data())
def test_any_changed_bytes_are_a_one_line_error(tmp_path_factory, model, tensors, data):
    """Of a file with one tensor alone: undamaged, it lacks the others."""
    path = tmp_path_factory.mktemp("damaged") / "damaged.safetensors"
    save_file({"bn1.bias": tensors["bn1.bias"]}, path)
    content = bytearray(path.read_bytes())
    for place in data.draw(st.lists(st.integers(0, len(content) - 1), max_size=4)):
        content[place] = data.draw(st.integers(0, 255))
    path.write_bytes(content)
    with pytest.raises(UserError) as caught:
        load_pytorch_weights(model, path)
    assert "\n" not in str(caught.value)


def test_a_missing_file_a_folder_and_another_format_are_refused(model, tmp_path):
    absent = tmp_path / "absent.safetensors"
    for source in (absent, tmp_path):
        assert f"no file '{source}'; give the path of a .safetensors" in refusal(model, source)
    (tmp_path / "model.onnx").write_bytes(b"onnx")
    assert "give a .safetensors, .pth, .weights.h5" in refusal(model, tmp_path / "model.onnx")


def test_without_safetensors_the_install_is_named(model, file, monkeypatch):
    monkeypatch.setitem(sys.modules, "safetensors", None)
    assert "pip install 'cbir-tf[safetensors]'" in refusal(model, file)


def test_weights_of_another_network_are_refused_by_name(file):
    with pytest.raises(UserError, match=r"lacks 'layer1\.1\.conv1\.weight' and"):
        build_backbone("resnet18", {}, str(file))
    with pytest.raises(UserError, match="resnet18 has no 'imagenet'; give a file or null"):
        build_backbone("resnet18", {}, "imagenet")
