"""PyTorch's state dictionaries read without PyTorch, and without running what is in the file.

`torch.save` writes a pickle, which can call any function when it is read as one. This reader allows
nothing but tensors in ordered dictionaries. Both layouts are read: a zip archive (PyTorch 1.6 and
later), and the older sequence of pickles.
"""

from __future__ import annotations

import io
import math
import pickle
import struct
import zipfile
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO

import ml_dtypes
import numpy as np

from cbir_tf.errors import UserError, first_line

# First pickle of the older layout; the protocol version and the machine's sizes follow.
_MAGIC = 0x1950A86A20F9469CFC6C
_PROTOCOL = 1001

_STORAGES: dict[str, Any] = {
    "DoubleStorage": np.float64,
    "FloatStorage": np.float32,
    "HalfStorage": np.float16,
    "BFloat16Storage": ml_dtypes.bfloat16,
    "LongStorage": np.int64,
    "IntStorage": np.int32,
    "ShortStorage": np.int16,
    "CharStorage": np.int8,
    "ByteStorage": np.uint8,
    "BoolStorage": np.bool_,
}


class _NotAllowedError(Exception):
    """The pickle holds something else than tensors in ordered dictionaries."""


class _Tensor:
    """A tensor whose values come later in the file: a view of a storage."""

    def __init__(
        self, storage: _Storage, offset: int, shape: tuple[int, ...], strides: tuple[int, ...]
    ) -> None:
        self.storage, self.offset, self.shape, self.strides = storage, offset, shape, strides

    def array(self, values: np.ndarray) -> np.ndarray:
        """The tensor, copied out of the values of its storage."""
        counts = (self.offset, *self.shape, *self.strides)
        if len(self.shape) != len(self.strides) or any(type(n) is not int or n < 0 for n in counts):
            raise _NotAllowedError("a tensor of an impossible shape")
        last = sum((n - 1) * step for n, step in zip(self.shape, self.strides, strict=True))
        if 0 in self.shape:
            return np.empty(self.shape, values.dtype)
        if self.offset + last >= len(values) or math.prod(self.shape) > len(values):
            raise _NotAllowedError("a tensor larger than its storage")
        strides = [step * values.itemsize for step in self.strides]
        return np.lib.stride_tricks.as_strided(values[self.offset :], self.shape, strides).copy()


class _Storage:
    """A run of numbers, named by a key."""

    def __init__(self, dtype: Any, key: str, length: int) -> None:
        self.dtype, self.key, self.length = np.dtype(dtype), key, length


class _Unpickler(pickle.Unpickler):
    """Allows ordered dictionaries, tensors and storages."""

    def __init__(self, file: BinaryIO) -> None:
        super().__init__(file, encoding="utf-8")
        self.storages: dict[str, _Storage] = {}

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) == ("collections", "OrderedDict"):
            return OrderedDict
        if (module, name) == ("torch._utils", "_rebuild_tensor_v2"):
            return _rebuilt
        if module == "torch" and name in _STORAGES:
            return _STORAGES[name]
        raise _NotAllowedError(f"{module}.{name}")

    def persistent_load(self, pid: Any) -> _Storage:
        kind, dtype, key, _, length, *_ = pid
        if kind != "storage" or type(length) is not int or length < 0:
            raise _NotAllowedError("a storage of another kind")
        return self.storages.setdefault(str(key), _Storage(dtype, str(key), length))


def _rebuilt(storage: _Storage, offset: int, shape: Any, strides: Any, *_: Any) -> _Tensor:
    if not isinstance(storage, _Storage):
        raise _NotAllowedError("a tensor without a storage")
    return _Tensor(storage, offset, tuple(shape), tuple(strides))


def read_state_dict(path: Path) -> dict[str, np.ndarray]:
    """The tensors of a file that `torch.save(model.state_dict(), path)` wrote, by their names.

    Raises:
        UserError: the file is damaged, or holds something else than named tensors.
        OSError: the file could not be read.
    """
    try:
        if zipfile.is_zipfile(path):
            with zipfile.ZipFile(path) as archive:
                return _of_archive(archive)
        with path.open("rb") as file:
            return _of_sequence(file)
    except _NotAllowedError as error:
        raise UserError(
            f"{path}: refused, as it holds {error}; only tensors by name are read, as "
            "torch.save(model.state_dict(), ...) writes them"
        ) from None
    except OSError:
        raise
    except Exception as error:  # of a damaged pickle nearly any
        raise UserError(
            f"{path}: not a file of PyTorch weights, or damaged ({first_line(error)}); fetch it "
            "again"
        ) from None


def _of_archive(archive: zipfile.ZipFile) -> dict[str, np.ndarray]:
    pickles = [each for each in archive.namelist() if each.endswith("/data.pkl")]
    if len(pickles) != 1:
        raise ValueError("no data.pkl")
    folder = pickles[0].removesuffix("data.pkl")
    if (
        f"{folder}byteorder" in archive.namelist()
        and archive.read(f"{folder}byteorder") != b"little"
    ):
        raise ValueError("byte order")
    unpickler = _Unpickler(io.BytesIO(archive.read(pickles[0])))
    state = unpickler.load()

    def values(storage: _Storage) -> bytes:
        return archive.read(f"{folder}data/{storage.key}")

    return _arrays(state, unpickler.storages, values)


def _of_sequence(file: BinaryIO) -> dict[str, np.ndarray]:
    if _plain(file) != _MAGIC or _plain(file) != _PROTOCOL:
        raise ValueError("no PyTorch header")
    if _plain(file).get("little_endian") is not True:
        raise ValueError("byte order")
    unpickler = _Unpickler(file)
    state = unpickler.load()
    read: dict[str, bytes] = {}
    for key in _plain(file):
        storage = unpickler.storages[key]
        (length,) = struct.unpack("<q", file.read(8))
        if length != storage.length:
            raise ValueError("a storage of another length")
        read[key] = file.read(length * storage.dtype.itemsize)
    return _arrays(state, unpickler.storages, lambda storage: read[storage.key])


def _plain(file: BinaryIO) -> Any:
    """The next pickle, of numbers and texts alone."""
    return _Unpickler(file).load()


def _arrays(
    state: Any, storages: dict[str, _Storage], values: Callable[[_Storage], bytes]
) -> dict[str, np.ndarray]:
    if not isinstance(state, dict):
        raise _NotAllowedError(f"a {type(state).__name__} in place of a dictionary")
    known: dict[str, np.ndarray] = {}
    for key, storage in storages.items():
        known[key] = np.frombuffer(values(storage), storage.dtype)
        if len(known[key]) != storage.length:
            raise ValueError("cut short")
    arrays: dict[str, np.ndarray] = {}
    for name, tensor in state.items():
        if not isinstance(name, str) or not isinstance(tensor, _Tensor):
            raise _NotAllowedError(f"{name!r}, which is not a tensor")
        arrays[name] = tensor.array(known[tensor.storage.key])
    return arrays
