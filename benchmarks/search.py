"""Search a million vectors: FAISS as chosen by our defaults beside scikit-learn's brute force.

    python benchmarks/search.py [--vectors 1000000] [--dimension 128]

The vectors form clusters of few dimensions, as embeddings do; queries are drawn from the same
clusters and are not in the gallery. The indexes take turns in one run; each turn begins with a
search that is not measured. Throughput is of batches, latency of single queries. Prints JSON.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.neighbors import NearestNeighbors

from cbir_tf.features.store import FeatureStore, Record
from cbir_tf.search import Index, make_index
from cbir_tf.types import Embeddings

K = 10
CLUSTERS, INTRINSIC = 1_000, 16
BATCH, BRUTE_BATCH, SINGLES, PASSES = 10_000, 200, 200, 5


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--vectors", type=int, default=1_000_000)
    parser.add_argument("--dimension", type=int, default=128)
    parser.add_argument("--turns", type=int, default=3)
    arguments = parser.parse_args()
    vectors = embedding_like(arguments.vectors + BATCH, arguments.dimension)
    gallery, queries = vectors[:-BATCH], vectors[-BATCH:]
    ids = np.array([f"image-{each:08d}" for each in range(len(gallery))])
    embeddings, store_seconds = through_store(ids, gallery)
    report: dict[str, Any] = {"vectors": len(gallery), "load_from_store_s": store_seconds}

    brute = NearestNeighbors(n_neighbors=K, algorithm="brute").fit(gallery)
    # Before FAISS is loaded: scikit-learn limits every BLAS to one thread, and the BLAS of FAISS
    # would apply that limit to all of OpenMP, so that scikit-learn would search with one thread.
    brute.kneighbors(queries[:BRUTE_BATCH])
    indexes: dict[str, Index] = {}
    for name, recall in (("approximate", 0.99), ("exact", 1.0)):
        start = time.perf_counter()
        indexes[name] = make_index("faiss", metric="euclidean", recall=recall).fit(embeddings)
        report[f"{name}_fit_s"] = time.perf_counter() - start

    rates: dict[str, list[float]] = {"scikit-learn": [], "exact": [], "approximate": []}
    singles: dict[str, list[float]] = {"scikit-learn": [], "exact": [], "approximate": []}
    for _ in range(arguments.turns):
        brute.kneighbors(queries[:BRUTE_BATCH])  # not measured, as with the others
        start = time.perf_counter()
        nearest = brute.kneighbors(queries[:BRUTE_BATCH], return_distance=False)
        rates["scikit-learn"].append(BRUTE_BATCH / (time.perf_counter() - start))
        for query in queries[:10]:
            start = time.perf_counter()
            brute.kneighbors(query[None], return_distance=False)
            singles["scikit-learn"].append(time.perf_counter() - start)
        found: dict[str, np.ndarray] = {"scikit-learn": ids[nearest]}
        for name in ("exact", "approximate"):
            # The previous index has filled the processor's caches with its own data.
            indexes[name].search(queries, K)
            passes = PASSES if name == "approximate" else 1  # each for about a second
            start = time.perf_counter()
            for _ in range(passes):
                found[name] = indexes[name].search(queries, K).ids
            rates[name].append(passes * BATCH / (time.perf_counter() - start))
            for query in queries[: SINGLES if name == "approximate" else 10]:
                start = time.perf_counter()
                indexes[name].search(query[None], K)
                singles[name].append(time.perf_counter() - start)
    # Of the approximate index on all queries, held to the exact one, and that to scikit-learn.
    for name, truth in (("exact", "scikit-learn"), ("approximate", "exact")):
        shared = map(np.isin, found[name], found[truth])
        report[f"{name}_recall"] = float(np.mean(list(shared)))
    report |= {f"{name}_per_s": float(np.median(values)) for name, values in rates.items()}
    report |= {f"{name}_single_ms": 1e3 * np.median(values) for name, values in singles.items()}
    for name in ("exact", "approximate"):
        ratios = np.divide(rates[name], rates["scikit-learn"])
        report[f"{name}_times_scikit_learn"] = float(np.median(ratios))
    print(json.dumps(report, indent=2))


def embedding_like(count: int, dimension: int, seed: int = 0) -> np.ndarray:
    """(count, dimension) float32 unit vectors in noisy clusters of INTRINSIC dimensions."""
    random = np.random.default_rng(seed)
    centres = random.normal(size=(CLUSTERS, dimension)).astype(np.float32)
    directions = random.normal(size=(CLUSTERS, INTRINSIC, dimension)).astype(np.float32)
    vectors = np.empty((count, dimension), dtype=np.float32)
    for start in range(0, count, 50_000):
        block = vectors[start : start + 50_000]
        cluster = random.integers(CLUSTERS, size=len(block))
        weights = random.normal(size=(len(block), INTRINSIC)).astype(np.float32) / 8
        block[:] = centres[cluster] + random.normal(size=block.shape) / 10
        for each in np.unique(cluster):
            block[cluster == each] += weights[cluster == each] @ directions[each]
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def through_store(ids: np.ndarray, vectors: np.ndarray) -> tuple[Embeddings, float]:
    """The vectors as read from a feature store, and the seconds of reading."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "features.db"
        with FeatureStore.create(path, "model", ["class"]) as store:
            for start in range(0, len(ids), 20_000):
                block = ids[start : start + 20_000]
                records = [Record(id_, None, 0, "test", "digest") for id_ in block.tolist()]
                store.write(records, vectors[start : start + 20_000])
        with FeatureStore.open(path) as store:
            start_time = time.perf_counter()
            embeddings = store.embeddings()
            return embeddings, time.perf_counter() - start_time


if __name__ == "__main__":
    main()
