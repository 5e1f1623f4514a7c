"""The embedder: one Keras model from pixels to embeddings, its preprocessing inside."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import keras
import numpy as np

from cbir_tf.config import Config
from cbir_tf.config import model as config_model
from cbir_tf.config.arguments import mapping, whole_number
from cbir_tf.errors import UserError, first_line, nearest
from cbir_tf.models.backbones import backbone_named, build_backbone
from cbir_tf.models.heads import apply_head
from cbir_tf.models.kerashub import INSTALL
from cbir_tf.models.preprocessing import preprocess
from cbir_tf.models.released_weights import Released, is_release
from cbir_tf.models.weights import is_weights_file, load_head_weights
from cbir_tf.progress import logger
from cbir_tf.storage.remote import local


def build_embedder(
    model: config_model.Model | Mapping[str, Any],
    seed: int = 0,
    image_size: tuple[int, int] = (224, 224),
) -> keras.Model:
    """An embedder: uint8 RGB (B, H, W, 3) of any H and W -> float32 (B, D).

    Its layers are called image, preprocessing, backbone (itself a model), pooling and, if the
    configuration has them, hidden_1, ..., dropout, embedding and normalize. The backbone computes
    under Keras' global dtype policy, everything else in float32.

    The same batch gives the same bits from `predict` and `predict_on_batch`, in any process,
    before and after saving. The eager call `embedder(images)`, whose operations are not fused, and
    batches of another size differ by rounding: by up to 1e-6 of a unit vector with the MobileNets,
    3e-5 with BiT.

    From the weights of a whole embedder, in a file or a release, the backbone is loaded, and the
    head too if it has the layers and sizes of the configured one.

    Args:
        model: the `model` section of a configuration, or its keys as a mapping.
        seed: of the random weights.
        image_size: height and width in pixels that a vision transformer is built for; the embedder
            scales images of other sizes to it.

    Raises:
        UserError: an unknown name, an impossible option, or weights that do not fit.
    """
    if not isinstance(model, config_model.Model):
        values = dict(mapping(model, "model", "config.model, or its keys"))
        model = Config.check({"data": {"source": "digits"}, "model": values}).model
    seed = whole_number(seed, "seed", 0)
    released = Released.open(model) if is_release(model.weights) else None
    source = model.weights if released is None else str(released.file)
    with initial_weights_from(seed):
        image = keras.Input((None, None, 3), dtype="uint8", name="image")
        if released is None:
            backbone = build_backbone(model.backbone, model.options, source, image_size)
        else:
            backbone = _released_backbone(released, model, image_size)
        own = backbone_named(model.backbone).preprocessing
        pixels = preprocess(image, own if model.preprocessing == "own" else model.preprocessing)
        embedder = keras.Model(image, apply_head(backbone(pixels), model), name="embedder")
    if source is not None and is_weights_file(source):
        _load_head(embedder, model, source)
    _set_trainable(backbone, model)
    embedder = _reproducible(embedder)
    if released is not None:
        released.check(embedder, model)
    return embedder


def _released_backbone(
    released: Released, model: config_model.Model, image_size: tuple[int, int]
) -> keras.Model:
    """The backbone of a release, after its embedder has passed the golden check."""
    embedder = load_embedder(released.file)
    released.check(embedder)
    if backbone_named(model.backbone).takes_weights:  # which decide its architecture
        return embedder.get_layer("backbone")
    return build_backbone(model.backbone, model.options, str(released.file), image_size)


def _load_head(embedder: keras.Model, model: config_model.Model, source: str) -> None:
    """Load the head too from the file of the backbone, if it has the configured one."""
    file = str(local(source)) if source.startswith("s3:") else source
    if load_head_weights(embedder, file):
        logger.info("model.weights: backbone and head loaded from %s", model.weights)
    elif model.hidden or model.embedding_size is not None:
        wanted = [f"model.hidden {list(model.hidden)}"] if model.hidden else []
        if model.embedding_size is not None:
            wanted.append(f"model.embedding_size {model.embedding_size}")
        logger.info(
            "model.weights: backbone loaded from %s; its head does not fit %s, so the head starts "
            "untrained",
            model.weights,
            " and ".join(wanted),
        )


def load_embedder(path: str | Path) -> keras.Model:
    """A saved embedder, not compiled: uint8 RGB (B, H, W, 3) -> float32 (B, D).

    Raises:
        UserError: the file is missing or damaged, or has another kind of model.
    """
    model = _read(Path(path))
    if not _is_embedder(model):
        raise UserError(
            f"{path}: not an embedder, which takes uint8 images of any size and returns float32 "
            "vectors; make one with `cbir train`"
        )
    return _reproducible(model)


def load_classifier(path: Path, classes: int) -> keras.Model:
    """A saved classifier: uint8 RGB (B, H, W, 3) -> float32 (B, classes) probabilities.

    Raises:
        UserError: the file is missing or damaged, or has another kind of model.
    """
    model = _read(path)
    if not isinstance(model, keras.Model) or model.output_shape != (None, classes):
        raise UserError(f"{path}: not a classifier of {classes} classes; train with --restart")
    return _reproducible(model)


def unnormalized(embedder: keras.Model) -> keras.KerasTensor:
    """The embedding (B, D) before `normalize`, if the embedder has that layer."""
    last = embedder.layers[-1]
    return last.input if last.name == "normalize" else embedder.outputs[0]


def frozen_batch_norm_digest(embedder: keras.Model) -> str:
    """SHA-256, in hexadecimal, of all variables of the backbone's frozen batch norm layers.

    It is the same before and after training if and only if those layers are.
    """
    digest = hashlib.sha256()
    for layer in _batch_norms(embedder.get_layer("backbone")):
        if not layer.trainable:
            for variable in layer.variables:
                digest.update(variable.path.encode())
                digest.update(np.asarray(variable).tobytes())
    return digest.hexdigest()


@contextmanager
def initial_weights_from(seed: int) -> Iterator[None]:
    """Seeds the initialisers, which use Python's generator; restores its state afterwards."""
    state = random.getstate()
    random.seed(seed)
    try:
        yield
    finally:
        random.setstate(state)


def _read(path: Path) -> object:
    if not path.is_file():
        raise UserError(f"{path}: no such model file; give the model.keras of a run")
    try:
        return keras.saving.load_model(path, compile=False, safe_mode=True)
    except Exception as error:  # a damaged archive makes Keras raise almost anything
        if "parent module keras_hub" in str(error):  # Keras has tried to import it
            raise UserError(f"{path}: {INSTALL}") from None
        raise UserError(
            f"{path}: could not be read as a model: {first_line(error)}; fetch or train it again"
        ) from error


def _set_trainable(backbone: keras.Model, model: config_model.Model) -> None:
    """Freeze the layers of the backbone that the configuration does not train."""
    names = [layer.name for layer in backbone.layers if layer.weights]
    if model.trainable == "head":
        backbone.trainable = False
    elif model.trainable != "all":
        if model.trainable not in names:
            hint = nearest(model.trainable, ["all", "head", *names])
            raise UserError(
                f"model.trainable: {model.backbone} has no layer {model.trainable!r} with "
                f"weights; {hint}"
            )
        for layer in backbone.layers:
            if layer.name == model.trainable:
                break
            layer.trainable = False
    if model.batch_norm == "frozen":
        # Not `backbone(x, training=False)`, which does not hold under fit in Keras 3.
        for layer in _batch_norms(backbone):
            layer.trainable = False


def _batch_norms(backbone: keras.Model) -> list[keras.Layer]:
    kind = keras.layers.BatchNormalization
    return [layer for layer in backbone.layers if isinstance(layer, kind)]


def _is_embedder(model: object) -> bool:
    if not isinstance(model, keras.Model) or len(model.inputs) != 1 or len(model.outputs) != 1:
        return False
    image, vector = model.inputs[0], model.outputs[0]
    return (
        (image.dtype, image.shape) == ("uint8", (None, None, None, 3))
        and (vector.dtype, len(vector.shape)) == ("float32", 2)
        and any(layer.name == "backbone" for layer in model.layers)
    )


def _reproducible(embedder: keras.Model) -> keras.Model:
    # XLA, which Keras enables on GPUs, rounds differently from plain calls and compiles again for
    # every size of image.
    embedder.jit_compile = False
    return embedder
