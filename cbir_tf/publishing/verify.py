"""Verify a release: its digests, its parts, and the golden embedding of each of its models."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import keras
import numpy as np

from cbir_tf.config import Config
from cbir_tf.errors import UserError, first_line
from cbir_tf.evaluation.table import markdown
from cbir_tf.models import load_embedder
from cbir_tf.models.golden import GOLDEN, Golden
from cbir_tf.models.released_weights import CONFIG, EMBEDDER
from cbir_tf.progress import logger
from cbir_tf.publishing.pack import DESCRIPTION, LABELS, METRICS, ONNX, WEIGHTS
from cbir_tf.releases.golden_image import golden_image
from cbir_tf.releases.manifest import MANIFEST, check_files
from cbir_tf.releases.registry import Reference
from cbir_tf.storage.files import read_json

NEEDED = (EMBEDDER, WEIGHTS, CONFIG, METRICS, LABELS, GOLDEN, DESCRIPTION)


@dataclass(frozen=True)
class Description:
    """Contents of release.json.

    Attributes:
        reference: name and version.
        licence: of the weights; empty: not stated.
    """

    reference: Reference
    licence: str

    @classmethod
    def load(cls, folder: Path) -> Description:
        """Read the description of the release in a folder.

        Raises:
            UserError: missing, damaged, or of a newer format.
        """
        if not (folder / MANIFEST).is_file() or not (folder / DESCRIPTION).is_file():
            raise UserError(f"{folder}: no release there; make one with cbir release pack")
        values = read_json(folder / DESCRIPTION)
        if values.get("format") != 1:
            raise UserError(
                f"{folder / DESCRIPTION}: format {values.get('format')} is not supported; use a "
                "newer cbir-tf"
            )
        reference = Reference.of(f"{values.get('name')}@{values.get('version')}")
        return cls(reference, str(values.get("licence", "")))


def verify(folder: Path, manifest_digest: str | None = None) -> dict[str, float]:
    """Check a release: its digests, its parts, and the golden embedding of each of its models.

    Nothing is unpickled, and no code from the release is run.

    Args:
        folder: of the release.
        manifest_digest: SHA-256 of its manifest, from a registry; None: not known.

    Returns:
        For each model file the distance to the golden embedding, as a share of its length.

    Raises:
        UserError: the first thing that is wrong.
    """
    Description.load(folder)
    digests = check_files(folder, manifest_digest)
    for name in NEEDED:
        if name not in digests:
            raise UserError(f"{folder}: {name} is missing; pack the release again")
    Config.load(folder / CONFIG)
    _check_labels(folder / LABELS)
    read_json(folder / METRICS)
    golden = Golden.load(folder / GOLDEN)
    embedder = load_embedder(folder / EMBEDDER)
    distances = {EMBEDDER: golden.check_model(embedder, folder / EMBEDDER)}
    _load_weights(embedder, folder / WEIGHTS)
    distances[WEIGHTS] = golden.check_model(embedder, folder / WEIGHTS)
    if ONNX in digests:
        vector = _embed_with_onnx(folder / ONNX, golden.size)
        if vector is not None:
            distances[ONNX] = golden.check(vector, folder / ONNX)
    return distances


def format_distances(distances: Mapping[str, float]) -> str:
    """The result of `verify` as a Markdown table."""
    rows = [(name, f"{distance:.1e}") for name, distance in distances.items()]
    return markdown(("file", "distance"), rows)


def _check_labels(file: Path) -> None:
    try:
        labels = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"{file}: damaged ({first_line(error)}); fetch the release again") from None
    if not isinstance(labels, list) or not all(isinstance(each, str) for each in labels):
        raise UserError(f"{file}: damaged: expected a list of names; fetch the release again")


def _load_weights(embedder: keras.Model, file: Path) -> None:
    """Replace all weights of an embedder by those of a file."""
    for variable in embedder.variables:
        variable.assign(np.zeros(variable.shape, variable.dtype))
    try:
        embedder.load_weights(file)
    except Exception as error:  # Keras and h5py raise errors of many types
        raise UserError(
            f"{file}: does not fit {EMBEDDER} ({first_line(error)}); fetch the release again"
        ) from error


def _embed_with_onnx(file: Path, size: tuple[int, int]) -> np.ndarray | None:
    """The embedding (D,) of the test image; None if ONNX Runtime is not installed."""
    try:
        import onnxruntime
    except ImportError:
        logger.warning("%s is not checked: ONNX Runtime is not installed", file)
        return None
    try:
        session = onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])
        pixels = golden_image(*size)[np.newaxis]
        vectors: np.ndarray = session.run(None, {session.get_inputs()[0].name: pixels})[0]
        return np.asarray(vectors[0])
    except Exception as error:  # ONNX Runtime has its own types
        raise UserError(
            f"{file}: could not be run ({first_line(error)}); update onnxruntime, or fetch "
            "the release again"
        ) from error
