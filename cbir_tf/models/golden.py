"""The golden embedding: the embedding of a built-in test image, saved to verify an embedder.

Weights can load without an error and still be wrong, or the pixels can be prepared differently. The
test image is computed from integers and is the same everywhere. Its embedding differs slightly, as
processors and TensorFlow releases round differently: between Keras, ONNX Runtime and Keras 2 on one
processor by 1e-7 to 6e-6 of the vector's length; on a GPU that multiplies in TF32, with a 10-bit
mantissa, by about 1e-3. The tolerances allow for that. Wrong weights, or pixels in another order or
range, give a vector that is far away.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import keras
import numpy as np

from cbir_tf.errors import UserError
from cbir_tf.releases.golden_image import golden_image
from cbir_tf.storage.files import read_json, write_text

GOLDEN = "golden.json"
TOLERANCES = {"float32": 5e-3, "mixed_bfloat16": 5e-2, "mixed_float16": 2e-2}
"""Largest distance between two embeddings of the test image, as a share of their length, by
training.precision."""


@dataclass(frozen=True)
class Golden:
    """An embedding of the test image.

    Attributes:
        size: height and width of the image in pixels.
        vector: (D,) float32.
        tolerance: largest distance to it, as a share of its length, that counts as the same.
    """

    size: tuple[int, int]
    vector: np.ndarray
    tolerance: float

    @classmethod
    def of(cls, embedder: keras.Model, size: tuple[int, int], precision: str) -> Golden:
        """The embedding of the test image of that size; precision: a key of TOLERANCES."""
        pixels = golden_image(*size)[np.newaxis]
        return cls(size, np.asarray(embedder.predict_on_batch(pixels))[0], TOLERANCES[precision])

    def save(self, file: Path) -> None:
        """Write it as JSON, each float32 with its shortest decimals.

        Raises:
            UserError: the file could not be written.
        """
        values = {
            "image": "cbir_tf.releases.golden_image.golden_image(height, width)",
            "size": list(self.size),
            "tolerance": self.tolerance,
            "embedding": [float(str(each)) for each in self.vector.astype(np.float32)],
        }
        write_text(file, json.dumps(values, indent=1) + "\n")

    @classmethod
    def load(cls, file: Path) -> Golden:
        """Read it from JSON.

        Raises:
            UserError: the file is missing or damaged.
        """
        values = read_json(file)
        try:
            height, width = map(int, values["size"])
            vector = np.array(values["embedding"], dtype=np.float32)
            golden = cls((height, width), vector, float(values["tolerance"]))
        except (KeyError, TypeError, ValueError):
            raise UserError(f"{file}: not a golden embedding; fetch the release again") from None
        sound = vector.ndim == 1 and np.isfinite(vector).all() and vector.any()
        if not (sound and 0 < golden.tolerance < 1 and min(golden.size) > 0):
            raise UserError(f"{file}: not a golden embedding; fetch the release again")
        return golden

    def distance(self, vector: np.ndarray) -> float:
        """Distance to another embedding (D,) of the image, as a share of the golden length."""
        return float(np.linalg.norm(vector - self.vector) / np.linalg.norm(self.vector))

    def check(self, vector: np.ndarray, where: str | Path) -> float:
        """The distance to an embedding (D,), which must be within the tolerance.

        Raises:
            UserError: it has another length, or is farther than the tolerance.
        """
        if vector.shape != self.vector.shape:
            raise UserError(
                f"{where}: its embeddings have {len(vector)} dimensions, the golden embedding "
                f"{len(self.vector)}; it is not what was released"
            )
        distance = self.distance(vector)
        if not distance <= self.tolerance:
            raise UserError(
                f"{where}: its embedding of the test image is not the golden one (distance "
                f"{distance:.2g} of its length, allowed {self.tolerance:.2g}); it is not what was "
                "released, or does not work on this machine"
            )
        return distance

    def check_model(self, embedder: keras.Model, where: str | Path) -> float:
        """`check` of an embedder's embedding of the test image."""
        pixels = golden_image(*self.size)[np.newaxis]
        return self.check(np.asarray(embedder.predict_on_batch(pixels))[0], where)
