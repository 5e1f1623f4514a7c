"""Evaluate 10,000 queries against 50,000 images of 128 dimensions in 10 classes: CIFAR-10's size.

    python benchmarks/evaluation.py

Every query ranks the whole gallery; all metrics, among them full mAP and MAP@100, come from one
pass. Prints JSON: seconds, peak memory of the process in GiB, and the two metrics.
"""

from __future__ import annotations

import json
import resource
import time

import numpy as np

from cbir_tf.evaluation import evaluate
from cbir_tf.types import Embeddings

QUERIES, GALLERY, DIMENSION, CLASSES = 10_000, 50_000, 128, 10


def main() -> None:
    """Measure and print."""
    random = np.random.default_rng(0)
    centres = random.normal(size=(CLASSES, DIMENSION))

    def embeddings(prefix: str, count: int) -> Embeddings:
        labels = random.integers(CLASSES, size=count)
        vectors = centres[labels] + 2 * random.normal(size=(count, DIMENSION))
        return Embeddings([f"{prefix}{each:05d}" for each in range(count)], vectors, labels)

    queries, gallery = embeddings("query", QUERIES), embeddings("image", GALLERY)
    start = time.perf_counter()
    figures = evaluate(queries, gallery, k=(1, 10, 100), metric="cosine")["figures"]
    report = {
        "seconds": time.perf_counter() - start,
        "peak_GiB": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20,
        "map": figures["map"],
        "map@100": figures["map@100"],
    }
    print(json.dumps(report, indent=2))


if __name__ == "__main__":
    main()
