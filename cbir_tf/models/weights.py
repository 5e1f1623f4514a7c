"""Weights from files and downloads into a model: all of them, of the right shapes, or an error."""

from __future__ import annotations

import contextlib
import io
import os
import re
import sys
import zipfile
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import h5py
import keras
import numpy as np

from cbir_tf.errors import UserError, first_line

# What classifiers of keras.applications have beyond their features, in layers with weights.
_LARGEST_TOP = 3

Arrays = dict[str, np.ndarray]
"""The weights of one layer as Layer.save_own_variables numbers them: "0", "1", ..."""


def is_weights_file(source: str) -> bool:
    """Whether `load_weights_file` is the one to read this source."""
    return source.endswith((".h5", ".hdf5", ".keras"))


def load_weights_file(model: keras.Model, source: str) -> None:
    """Set every weight of a model from a file.

    The file may be a Keras 3 `.weights.h5` of the same network, with or without a classifier on
    top; the `.weights.h5` or `.keras` file of an embedder, whose backbone is used; or an `.h5` of
    Keras 2, as keras.applications publishes them, or of the network inside another model with dense
    layers on top.

    Args:
        model: a functional model; its variables change only if the file has all of them.
        source: path of the file.

    Raises:
        UserError: the file is missing or damaged, lacks a layer, has one of another shape, or is
            of a larger network.
    """
    path = Path(source)
    if not path.is_file():
        raise UserError(
            f"model.weights: no file {source!r}; give the path of a .weights.h5 file, imagenet "
            "or null"
        )
    if not is_weights_file(source):
        raise UserError(f"{path}: weights are read from .weights.h5, .h5 and .keras files")
    with _reading(path) as file:
        keras_2 = _keras_2_group(file)
        stored = _keras_3_layers(file) if keras_2 is None else _keras_2_layers(keras_2, model)
    _assign(model, stored, str(path))


def load_head_weights(embedder: keras.Model, source: str) -> bool:
    """Set the weights of an embedder's head, if the file of its backbone has the same head.

    Args:
        embedder: a model with pooling and dense layers after a layer `backbone`.
        source: path of a file that `load_weights_file` has read.

    Returns:
        Whether the file has a head with the same layers and shapes; otherwise nothing changes.

    Raises:
        UserError: the file is damaged.
    """
    head = {
        name: layer
        for name, layer in _numbered_layers(embedder)
        if "/" not in name and layer.name != "preprocessing" and _own_weights(layer)
    }
    with _reading(Path(source)) as file:
        keras_2 = _keras_2_group(file)
        if keras_2 is None:
            stored = _keras_3_head(file)
        else:
            stored = _keras_2_head(keras_2, embedder.get_layer("backbone"), list(head))
    expected = {name: _shapes(_own_weights(layer)) for name, layer in head.items()}
    if not head or {name: _shapes(arrays) for name, arrays in stored.items()} != expected:
        return False
    for name, layer in head.items():
        layer.load_own_variables(stored[name])
    return True


def load_imagenet(
    model: keras.Model,
    options: Mapping[str, Any],
    constructor: Callable[..., keras.Model],
    image_size: int,
) -> None:
    """Set every weight of a model from what keras.applications publishes, downloading it once.

    Args:
        model: made by `constructor` with these options, for any image size.
        options: further arguments of `constructor`.
        constructor: of keras.applications.
        image_size: side in pixels of square images that the weights are published for.

    Raises:
        UserError: there are no published weights for these options, they cannot be downloaded, or
            an earlier download was interrupted.
    """
    name = f"imagenet weights of {constructor.__name__}"
    shape = (image_size, image_size, 3)
    try:
        with contextlib.redirect_stdout(sys.stderr):
            donor = constructor(include_top=False, weights="imagenet", input_shape=shape, **options)
    except Exception as error:  # Keras raises bare Exception when a download fails
        reason = first_line(error)
        address = re.search(r"https?://\S+/([^/\s]+\.h5)", reason)
        if address is None and isinstance(error, ValueError):
            raise UserError(
                f"{name}: none are published for model.options {dict(options)}: {reason}"
            ) from error
        remedy = _remedy(address[1] if address else "the file")
        raise UserError(f"{name}: could not be downloaded ({reason}); {remedy}") from error
    stored = {each: _own_weights(layer) for each, layer in _numbered_layers(donor)}
    _assign(model, stored, name)


def _remedy(file: str) -> str:
    """How to get a file of weights otherwise than by Keras' download."""
    # Keras downloads in place without a digest: an interrupted download looks like a finished one.
    cache = Path(os.environ.get("KERAS_HOME", Path.home() / ".keras")) / "models"
    damaged = [str(each) for each in sorted(cache.glob("*.h5")) if not _is_readable(each)]
    if damaged:
        return f"delete {damaged[0]}, left by an interrupted download, and try again"
    return f"put {file}, fetched elsewhere, into {cache}, or give model.weights its path"


def _is_readable(path: Path) -> bool:
    try:
        with h5py.File(path):
            return True
    except OSError:
        return False


@contextlib.contextmanager
def _reading(path: Path) -> Iterator[h5py.File]:
    """The HDF5 file at a path, or inside a .keras file; a UserError if it could not be read."""
    try:
        if path.suffix == ".keras":
            with zipfile.ZipFile(path) as archive:
                contents = io.BytesIO(archive.read("model.weights.h5"))
            with h5py.File(contents) as file:
                yield file
        else:
            with h5py.File(path) as file:
                yield file
    except (OSError, KeyError, TypeError, RuntimeError, zipfile.BadZipFile) as error:
        raise UserError(
            f"{path}: not a weights file, or damaged ({first_line(error)}); fetch it again"
        ) from error


_BACKBONE = "layers/functional/layers"
"""Group of the layers of an embedder's backbone in a Keras 3 file."""


def _keras_3_layers(file: h5py.File) -> dict[str, Arrays]:
    """The layers of the network, or of the backbone where the file is that of an embedder."""
    return _arrays_below(file[_BACKBONE] if _BACKBONE in file else file["layers"])


def _keras_3_head(file: h5py.File) -> dict[str, Arrays]:
    """The layers of an embedder except its backbone; empty for a file of another network."""
    stored = _arrays_below(file["layers"]) if _BACKBONE in file else {}
    # A Normalization is the preprocessing, which belongs to the backbone and is not loaded.
    return {
        name: arrays
        for name, arrays in stored.items()
        if "/" not in name and name != "normalization"
    }


def _arrays_below(group: h5py.Group) -> dict[str, Arrays]:
    stored: dict[str, Arrays] = {}

    def keep(path: str, array: h5py.Dataset | h5py.Group) -> None:
        # Layers, those of nested models too, but not the states of their random generators.
        place = re.fullmatch(r"([^/]+(?:/layers/[^/]+)*)/vars/(\d+)", path)
        if place:
            stored.setdefault(place[1], {})[place[2]] = array[()]

    group.visititems(keep)
    return stored


def _keras_2_group(file: h5py.File) -> h5py.Group | None:
    """The layers of a Keras 2 file; None for a Keras 3 file."""
    group = file.get("model_weights", file)
    return group if "layer_names" in group.attrs else None


def _keras_2_arrays(group: h5py.Group) -> dict[str, list[np.ndarray]]:
    """The arrays of each layer of a Keras 2 file, a nested model being split into its layers.

    A nested model is one layer of the file, with weights such as `layer/kernel:0`: first all
    trained ones, then all others, in order within each of its layers.
    """
    stored: dict[str, list[np.ndarray]] = {}
    for name in _texts(group.attrs["layer_names"]):
        keys = _texts(group[name].attrs["weight_names"])
        owners = [key.split("/")[-2] if "/" in key else name for key in keys]
        nested = len(set(owners)) > 1
        for key, owner in zip(keys, owners, strict=True):
            stored.setdefault(owner if nested else name, []).append(group[name][key][()])
    return stored


def _keras_2_split(
    group: h5py.Group, model: keras.Model
) -> tuple[list[np.ndarray], dict[str, list[np.ndarray]]]:
    """The arrays of a network in order, and those of the layers on top of it by layer.

    Layers are matched by name if the file has all names of the network, else in order.
    """
    stored = _keras_2_arrays(group)
    layers = [layer.name for layer in model.layers if layer.weights]
    first = layers if set(layers) <= set(stored) else list(stored)[: len(layers)]
    return [array for name in first for array in stored.pop(name)], stored


def _keras_2_layers(group: h5py.Group, model: keras.Model) -> dict[str, Arrays]:
    """The layers of a Keras 2 file under the names they have in a Keras 3 file."""
    arrays, further = _keras_2_split(group, model)
    found = {}
    for name, layer in _numbered_layers(model):
        count = len(_own_weights(layer))
        found[name] = {str(i): array for i, array in enumerate(arrays[:count])}
        del arrays[:count]
    return {name: {"0": each[0]} for name, each in further.items()} | found


def _keras_2_head(
    group: h5py.Group, backbone: keras.Model, names: Sequence[str]
) -> dict[str, Arrays]:
    """The layers on top of the backbone in a Keras 2 file, in order, under these names."""
    _, further = _keras_2_split(group, backbone)
    if len(further) != len(names):
        return {}
    return {
        name: {str(i): array for i, array in enumerate(arrays)}
        for name, arrays in zip(names, further.values(), strict=True)
    }


def _assign(model: keras.Model, stored: Mapping[str, Arrays], source: str) -> None:
    """Check that the weights of every layer were found, then set them all."""
    found = {}
    for name, layer in _numbered_layers(model):
        expected = _shapes(_own_weights(layer))
        arrays = stored.get(name, {})
        shapes = _shapes(arrays)
        if expected != shapes:
            raise UserError(
                f"{source}: layer {layer.name!r}: expected {_listed(expected)}, found "
                f"{_listed(shapes)}; are these the weights of this backbone and its options?"
            )
        if expected:
            found[name] = layer, arrays
    further = [name for name, arrays in stored.items() if arrays and name not in found]
    if len(further) > _LARGEST_TOP:
        raise UserError(
            f"{source}: has {len(further)} layers more than the backbone, such as {further[0]!r}; "
            "are these the weights of this backbone and its options?"
        )
    if sum(len(arrays) for _, arrays in found.values()) != len(model.weights):
        raise ValueError(f"{model.name}: a layer that is not a model has weights of inner layers")
    for layer, arrays in found.values():
        layer.load_own_variables(arrays)


def _numbered_layers(model: keras.Model, within: str = "") -> Iterator[tuple[str, keras.Layer]]:
    """Layers by their names in a Keras 3 file: conv2d, batch_normalization, conv2d_1, ..."""
    seen: Counter[str] = Counter()
    for layer in model.layers:
        words = re.sub(r"(.)([A-Z][a-z]+)", r"\1_\2", type(layer).__name__)
        kind = re.sub(r"([a-z])([A-Z])", r"\1_\2", words).lower()
        name = f"{within}{kind}_{seen[kind]}" if seen[kind] else within + kind
        seen[kind] += 1
        if isinstance(layer, keras.Model):
            yield from _numbered_layers(layer, f"{name}/layers/")
        else:
            yield name, layer


def _own_weights(layer: keras.Layer) -> Arrays:
    store: dict[str, Any] = {}
    layer.save_own_variables(store)
    return {key: np.asarray(value) for key, value in store.items()}


def _shapes(arrays: Arrays) -> dict[str, tuple[int, ...]]:
    return {key: array.shape for key, array in arrays.items()}


def _listed(shapes: Mapping[str, tuple[int, ...]]) -> str:
    return " and ".join(map(str, shapes.values())) or "nothing"


def _texts(values: Iterable[bytes | str]) -> list[str]:
    return [each.decode() if isinstance(each, bytes) else str(each) for each in values]
