"""Images per second from files to stored vectors, compared with its two halves and with Keras.

    python benchmarks/encoding.py data/clothing224 [--images 1000] [--turns 3]

MobileNetV2 at 224 x 224 with random weights, whose speed is that of any others. In turns, over the
same files: decoding alone; ONNX Runtime alone, on images in memory; `extract` end to end, into a
new feature store; and plain `keras predict` over a tf.data pipeline that decodes the same files. As
decoding and the model share the cores, their joint limit is 1 / (1 / decoding + 1 / model).
Prints JSON.
"""

from __future__ import annotations

import argparse
import json
import resource
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from cbir_tf.config.data import Data
from cbir_tf.config.model import Model
from cbir_tf.data.batches import inference_batches
from cbir_tf.data.sources import images_in_folder
from cbir_tf.features.encode import encode
from cbir_tf.features.runtime import is_exported, open_encoder
from cbir_tf.features.store import FeatureStore
from cbir_tf.models import build_embedder
from cbir_tf.types import ImageSet

SIZE = (224, 224)
BATCH = 32


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--images", type=int, default=1000)
    parser.add_argument("--turns", type=int, default=3)
    arguments = parser.parse_args()
    images = images_in_folder(arguments.folder)
    images = images.take(np.arange(min(arguments.images, len(images))))
    data = Data.model_validate(
        {"source": "folder", "path": arguments.folder, "image_size": SIZE, "batch": {"size": BATCH}}
    )
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.keras"
        model = build_embedder(Model(backbone="mobilenet_v2", weights=None, embedding_size=128))
        model.save(path)
        encoder = open_encoder(path, SIZE)
        assert is_exported(path), "needs ONNX Runtime: pip install 'cbir-tf[onnx]'"
        decoded = [pixels.numpy() for pixels, _ in inference_batches(images, data)]
        jobs: dict[str, Callable[[], object]] = {
            "decoding": lambda: [None for _ in inference_batches(images, data)],
            "onnx_runtime": lambda: [encoder(pixels) for pixels in decoded],
            "extract": lambda: _extract(encoder, images, data, Path(folder)),
            "keras_predict": lambda: model.predict(
                inference_batches(images, data).map(lambda pixels, _: pixels), verbose=0
            ),
        }
        rates: dict[str, list[float]] = {name: [] for name in jobs}
        for turn in range(arguments.turns + 1):
            for name, job in jobs.items():
                start = time.perf_counter()
                job()
                if turn:  # the first warms up
                    rates[name].append(len(images) / (time.perf_counter() - start))
    each = {name: np.array(values) for name, values in rates.items()}
    allowed = 1 / (1 / each["decoding"] + 1 / each["onnx_runtime"])
    report = {f"{name}_images_per_s": float(np.median(values)) for name, values in each.items()}
    report |= {
        "extract_of_allowed": float(np.median(each["extract"] / allowed)),
        "extract_times_keras_predict": float(np.median(each["extract"] / each["keras_predict"])),
        "peak_MiB": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
    }
    print(json.dumps(report, indent=2))


def _extract(
    encoder: Callable[[np.ndarray], np.ndarray], images: ImageSet, data: Data, folder: Path
) -> None:
    path = folder / "features.db"
    for each in folder.glob("features.db*"):
        each.unlink()
    with FeatureStore.create(path, "model", images.class_names) as store:
        encode(encoder, images, data, store)


if __name__ == "__main__":
    main()
