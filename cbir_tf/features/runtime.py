"""From pixels to vectors: ONNX Runtime if installed, else Keras; or classical descriptors."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from cbir_tf.parallel import blocks, cores
from cbir_tf.progress import logger
from cbir_tf.storage.files import replacing, sha256

if TYPE_CHECKING:
    import keras

Encoder = Callable[[np.ndarray], np.ndarray]
"""uint8 (B, H, W, 3) RGB -> float32 (B, D)."""

DESCRIPTORS = ".npz"
"""Suffix of the model file of classical descriptors."""

OPSET = 17
TOLERANCE = 1e-4
PIECE_PIXELS = 2**16
"""Pixels that a core encodes in one call: several small images, as each call has a fixed cost."""
_DIGEST = "cbir_tf.model"
_COUNTED = re.compile(r"(?<=__)\d+")


def predict(model: keras.Model, pixels: np.ndarray) -> np.ndarray:
    """Embed one uint8 (B, H, W, 3) batch with Keras: float32 (B, D)."""
    return np.asarray(model.predict_on_batch(pixels))


def open_encoder(model: Path, size: tuple[int, int]) -> Encoder:
    """The encoder of a saved embedder, or of classical descriptors.

    If ONNX Runtime is installed, the embedder is exported once to a file beside the model, which is
    used from then on if its vectors agree with those of Keras to 1e-4. Without ONNX Runtime, or if
    the export fails, Keras encodes, which takes about twice as long.

    Args:
        model: model.keras, or model.npz of descriptors.
        size: height and width in pixels of the test images of an export; an export takes other
            sizes too.

    Returns:
        A function from uint8 (B, H, W, 3) to float32 (B, D).

    Raises:
        UserError: the model is missing or damaged.
    """
    if model.suffix == DESCRIPTORS:
        from cbir_tf.features.descriptors import Descriptors

        return Descriptors.load(model)
    return _exported(model) or _open_embedder(model, size)


def _open_embedder(model: Path, size: tuple[int, int]) -> Encoder:
    """The exported embedder if the export works, otherwise the embedder in Keras."""
    from cbir_tf.models import load_embedder

    embedder = load_embedder(model)
    keras_encoder = partial(predict, embedder)
    if not _installed():
        return keras_encoder
    try:
        _export(embedder, model)
    except ImportError as error:
        logger.info("%s is not installed: encoding with Keras", error.name)
        return keras_encoder
    except Exception as error:  # converters raise many kinds for unknown operations
        logger.warning("no export to ONNX (%s): encoding with Keras", error)
        return keras_encoder
    encoder = _exported(model)
    if encoder is None or not _agrees(encoder, keras_encoder, size):
        logger.warning("the exported model's vectors differ from Keras': encoding with Keras")
        model.with_suffix(".onnx").unlink(missing_ok=True)
        return keras_encoder
    return encoder


def is_exported(model: Path) -> bool:
    """Whether `open_encoder` works without Keras, whose import takes seconds."""
    return model.suffix == DESCRIPTORS or _exported(model) is not None


def check_model(model: Path) -> None:
    """Read a model, an embedder or descriptors, to check it.

    Raises:
        UserError: missing or damaged.
    """
    if model.suffix == DESCRIPTORS:
        from cbir_tf.features.descriptors import Descriptors

        Descriptors.load(model)
        return
    from cbir_tf.models import load_embedder

    load_embedder(model)


def _installed() -> bool:
    try:
        import onnxruntime  # noqa: F401
    except ImportError:
        return False
    return True


def _exported(model: Path) -> OnnxEncoder | None:
    """The exported model, opened; None if it is missing, damaged or of another model."""
    path = model.with_suffix(".onnx")
    if not (path.is_file() and model.is_file() and _installed()):
        return None
    session = _session(path, cores())
    if session is None or _digest_of(session) != sha256(model):
        return None
    if any(isinstance(side, int) for side in session.get_inputs()[0].shape[1:3]):
        return None  # exported by an earlier version, for one size only
    return OnnxEncoder(path, session)


class OnnxEncoder:
    """A model in ONNX Runtime.

    A single image runs on all cores. Several images are distributed over the cores, one image per
    core at a time: threads that share each layer of a batch wait for one another, and a single
    image fits into a core's cache.

    Args:
        path: the exported model.
        session: its session on all cores.
    """

    def __init__(self, path: Path, session: Any) -> None:
        self._path, self._alone = path, session

    def __call__(self, pixels: np.ndarray) -> np.ndarray:
        """Encode: see `Encoder`."""
        count = cores()
        if len(pixels) < 2 or count == 1:
            return _run(self._alone, pixels)
        size = pixels[0, ..., 0].size
        most = min(PIECE_PIXELS, size * (len(pixels) // count))
        pieces = [pixels[some] for some in blocks(len(pixels), size, most)]
        session, vectors = self._shared, [np.empty(0)] * len(pieces)
        waiting = iter(range(len(pieces)))  # shared: each thread takes the next piece

        def work() -> None:
            for number in waiting:
                vectors[number] = _run(session, pieces[number])

        self.by_all_cores(work)
        return np.concatenate(vectors)

    def by_all_cores(self, work: Callable[[], None]) -> None:
        """Run `work` on every core; each call takes pieces until none is left.

        The calling thread works too: to wake it for each piece would cost more.
        """
        others = [self._threads.submit(work) for _ in range(cores() - 1)]
        work()
        for each in others:
            each.result()

    @cached_property
    def _shared(self) -> Any:
        """A session that runs in the calling thread."""
        session = _session(self._path, 1)
        # The file may have been deleted or replaced since.
        same = session is not None and _digest_of(session) == _digest_of(self._alone)
        return session if same else self._alone

    @cached_property
    def _threads(self) -> ThreadPoolExecutor:
        return ThreadPoolExecutor(
            max(1, cores() - 1), "encoder"
        )  # kept: a service encodes all the time


def _session(exported: Path, threads: int) -> Any:
    """An exported model, opened; None if it cannot be opened."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    # Spinning threads would take processor time from the image decoder.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    try:
        return onnxruntime.InferenceSession(exported, options, providers=["CPUExecutionProvider"])
    except Exception:  # a damaged file can raise anything; the model is exported again
        return None


def _digest_of(session: Any) -> str | None:
    digest: str | None = session.get_modelmeta().custom_metadata_map.get(_DIGEST)
    return digest


def _run(session: Any, pixels: np.ndarray) -> np.ndarray:
    return np.asarray(session.run(None, {session.get_inputs()[0].name: pixels})[0])


def _export(embedder: keras.Model, model: Path) -> None:
    import tensorflow as tf
    import tf2onnx
    from tensorflow.python.framework.convert_to_constants import (
        convert_variables_to_constants_v2,
    )

    for name in ("tf2onnx", "tensorflow"):  # their warnings do not help users
        logging.getLogger(name).setLevel(logging.ERROR)
    image = tf.TensorSpec((None, None, None, 3), tf.uint8, name="image")
    function = tf.function(lambda image: embedder(image, training=False))
    # Not tf2onnx's from_function, which treats constants of a Normalization layer as inputs.
    frozen = convert_variables_to_constants_v2(function.get_concrete_function(image))
    exported, _ = tf2onnx.convert.from_graph_def(
        frozen.graph.as_graph_def(),
        input_names=["image:0"],
        output_names=[output.name for output in frozen.outputs],
        opset=OPSET,
        custom_op_handlers={"Erfc": (_complementary_error, [])},
    )
    _renumber(exported.graph, {})
    exported.metadata_props.add(key=_DIGEST, value=sha256(model))
    with replacing(model.with_suffix(".onnx")) as temporary:
        temporary.write_bytes(exported.SerializeToString())


def _complementary_error(context: Any, node: Any, name: str, arguments: Any) -> None:
    """1 - erf(x), part of GELU in transformers; tf2onnx does not support Erfc."""
    data_type = context.get_dtype(node.input[0])
    error = context.make_node("Erf", node.input, dtypes=[data_type])
    one = context.make_const(f"{name}_one", np.ones((), dtype=np.float32))
    context.remove_node(name)
    context.make_node("Sub", [one.output[0], error.output[0]], outputs=node.output, name=name)


def _renumber(graph: Any, numbers: dict[str, str]) -> None:
    """Renumber names such as Conv__55, whose numbers tf2onnx counts over the whole process.

    So the same model is always exported to the same bytes.
    """

    def renamed(name: str) -> str:
        return _COUNTED.sub(lambda found: numbers.setdefault(found[0], str(len(numbers))), name)

    for node in graph.node:
        node.name = renamed(node.name)
        node.input[:] = [renamed(each) for each in node.input]
        node.output[:] = [renamed(each) for each in node.output]
        for attribute in node.attribute:
            if attribute.HasField("g"):
                _renumber(attribute.g, numbers)
    for each in (*graph.initializer, *graph.value_info, *graph.input, *graph.output):
        each.name = renamed(each.name)
    for each in (*graph.value_info, *graph.input, *graph.output):
        for size in each.type.tensor_type.shape.dim:
            if size.dim_param:
                size.dim_param = renamed(size.dim_param)
    for values in (graph.initializer, graph.value_info):
        ordered = sorted(values, key=lambda each: each.name)
        del values[:]
        values.extend(ordered)


def _agrees(encoder: Encoder, reference: Encoder, size: tuple[int, int]) -> bool:
    pixels = np.random.default_rng(0).integers(0, 256, (2, *size, 3), dtype=np.uint8)
    return bool(np.allclose(encoder(pixels), reference(pixels), atol=TOLERANCE, rtol=0))
