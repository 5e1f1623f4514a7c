"""An embedder in the formats of other programs: SavedModel, ONNX, LiteRT, the last two also int8.

All take uint8 RGB of the run's size, ONNX of any, and give float32 embeddings, as the embedder
does; int8 is what they compute in between. LiteRT's take one image at a time.
"""

from __future__ import annotations

import logging
import os
import shutil
import sys
import tempfile
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from tensorflow.python.framework.convert_to_constants import convert_variables_to_constants_v2

from cbir_tf.errors import UserError, first_line
from cbir_tf.features.runtime import Encoder, is_exported, open_encoder
from cbir_tf.storage.files import new_folder, replacing

INSTALL = "needs onnxruntime and tf2onnx; pip install 'cbir-tf[onnx]'"


@dataclass(frozen=True)
class Source:
    """What is exported.

    Attributes:
        model: file of the embedder.
        embedder: read from it.
        calibration: (N, H, W, 3) uint8 images, by which the ranges of int8 are chosen.
    """

    model: Path
    embedder: keras.Model
    calibration: np.ndarray

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of the images."""
        return self.calibration.shape[1], self.calibration.shape[2]


@dataclass(frozen=True)
class Format:
    """A format to export to.

    Attributes:
        name: of the file or folder.
        write: makes it of a source at a path.
        read: opens it there.
    """

    name: str
    write: Callable[[Source, Path], None]
    read: Callable[[Path], Encoder]


def export(source: Source, name: str, to: Path) -> tuple[Path, Encoder]:
    """Write one format into a folder and open it from there.

    Args:
        source: what is exported.
        name: a key of FORMATS.
        to: the folder.

    Returns:
        The file or folder, and what embeds with it.

    Raises:
        UserError: the packages for it are missing, it cannot be written, or the converter does not
            know what the model does.
    """
    chosen = FORMATS[name]
    path = to / chosen.name
    to.mkdir(parents=True, exist_ok=True)
    try:
        with _quietly():
            chosen.write(source, path)
            return path, chosen.read(path)
    except (UserError, OSError):
        raise
    except Exception as error:  # whatever a converter raises of an operation it does not know
        raise UserError(
            f"{path}: could not be converted ({first_line(error)}); leave this format out with "
            "--format"
        ) from error


@contextmanager
def _quietly() -> Iterator[None]:
    """Keep the converters' notes, in Python and C++, from what the user has to read."""
    sys.stderr.flush()
    kept, root = os.dup(2), logging.getLogger()
    level = root.level
    with tempfile.TemporaryFile() as hidden, warnings.catch_warnings(action="ignore"):
        root.setLevel(logging.ERROR)
        os.dup2(hidden.fileno(), 2)
        try:
            yield
        finally:
            sys.stderr.flush()
            os.dup2(kept, 2)
            os.close(kept)
            root.setLevel(level)


def _write_saved_model(source: Source, path: Path) -> None:
    archive = keras.export.ExportArchive()
    archive.track(source.embedder)
    images = tf.TensorSpec((None, *source.size, 3), tf.uint8, name="images")
    archive.add_endpoint("serve", lambda images: source.embedder(images, training=False), [images])
    shutil.rmtree(path, ignore_errors=True)
    with new_folder(path) as scratch:
        archive.write_out(scratch, verbose=False)


def _read_saved_model(path: Path) -> Encoder:
    model = tf.saved_model.load(path)
    return lambda pixels: np.asarray(model.serve(tf.constant(pixels)))


def _write_onnx(source: Source, path: Path) -> None:
    shutil.copyfile(_onnx_of(source), path)


def _onnx_of(source: Source) -> Path:
    """The file beside the run's model that ONNX Runtime encodes with."""
    open_encoder(source.model, source.size)
    if not is_exported(source.model):
        raise UserError(
            f"{source.model}: could not be exported to ONNX: {INSTALL}, or leave out --format onnx"
        )
    return source.model.with_suffix(".onnx")


def _read_onnx(path: Path) -> Encoder:
    import onnxruntime

    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    return lambda pixels: np.asarray(session.run(None, {name: pixels})[0])


def _write_onnx_int8(source: Source, path: Path) -> None:
    exported = _onnx_of(source)
    from onnxruntime.quantization import (
        CalibrationDataReader,
        QuantFormat,
        QuantType,
        quantize_static,
    )
    from onnxruntime.quantization.shape_inference import quant_pre_process

    class Images(CalibrationDataReader):  # type: ignore[misc]  # which has no types
        def __init__(self) -> None:
            self.remaining = iter(source.calibration)

        def get_next(self) -> dict[str, np.ndarray] | None:
            image = next(self.remaining, None)
            return None if image is None else {"image:0": image[np.newaxis]}

    with tempfile.TemporaryDirectory() as folder, replacing(path) as temporary:
        prepared = Path(folder) / "prepared.onnx"
        quant_pre_process(str(exported), str(prepared), skip_symbolic_shape=True)
        quantize_static(
            str(prepared),
            str(temporary),
            Images(),
            quant_format=QuantFormat.QDQ,
            # Signed weights overflow in the kernels of processors without VNNI instructions.
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QUInt8,
            per_channel=True,
        )


def _converter(source: Source) -> Any:
    image = tf.TensorSpec((1, *source.size, 3), tf.uint8, name="image")
    function = tf.function(lambda image: source.embedder(image, training=False))
    # Constants in place of variables, which the converter leaves without a value.
    frozen = convert_variables_to_constants_v2(function.get_concrete_function(image))
    return tf.lite.TFLiteConverter.from_concrete_functions([frozen], tf.Module())


def _write_litert(source: Source, path: Path) -> None:
    with replacing(path) as temporary:
        temporary.write_bytes(_converter(source).convert())


def _write_litert_int8(source: Source, path: Path) -> None:
    converter = _converter(source)
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    converter.representative_dataset = partial(_singly, source.calibration)
    # What has no int8 form, as the scaling to length 1, is computed in float32.
    operations = tf.lite.OpsSet
    converter.target_spec.supported_ops = [
        operations.TFLITE_BUILTINS_INT8,
        operations.TFLITE_BUILTINS,
    ]
    with replacing(path) as temporary:
        temporary.write_bytes(converter.convert())


def _singly(images: np.ndarray) -> Iterator[list[np.ndarray]]:
    for image in images:
        yield [image[np.newaxis]]


def _read_litert(path: Path) -> Encoder:
    interpreter = tf.lite.Interpreter(str(path))
    interpreter.allocate_tensors()
    (given,), (made,) = interpreter.get_input_details(), interpreter.get_output_details()

    def one(image: np.ndarray) -> np.ndarray:
        interpreter.set_tensor(given["index"], image[np.newaxis])
        interpreter.invoke()
        return np.array(interpreter.get_tensor(made["index"])[0])

    return lambda pixels: np.stack([one(image) for image in pixels])


FORMATS = {
    "savedmodel": Format("savedmodel", _write_saved_model, _read_saved_model),
    "onnx": Format("model.onnx", _write_onnx, _read_onnx),
    "litert": Format("model.tflite", _write_litert, _read_litert),
    "onnx-int8": Format("model.int8.onnx", _write_onnx_int8, _read_onnx),
    "litert-int8": Format("model.int8.tflite", _write_litert_int8, _read_litert),
}
