"""Re-ranking of the first candidates by their neighbours, and related methods.

Re-ranking uses only the candidates of each query, so that memory does not depend on the size of the
gallery. Distances are those of the index's metric unless stated otherwise.

- `query_expansion`: alpha query expansion (Radenovic et al. 2018, Fine-tuning CNN Image Retrieval
  with No Human Annotation, section 4.3): the query becomes the weighted mean of itself and its n
  nearest neighbours, each weighted by its cosine similarity to the power of alpha; then follows a
  second search.
- `augmented`: database-side augmentation (Arandjelovic & Zisserman 2012, Three things everyone
  should know): the same for each vector of the gallery, once, before the index is fitted.
- `k_reciprocal`: re-ranking by k-reciprocal neighbours (Zhong et al. 2017, Re-ranking Person
  Re-identification with k-reciprocal Encoding), among the query and its candidates.
"""

from __future__ import annotations

import numpy as np

from cbir_tf.parallel import blocks
from cbir_tf.search.distances import between, find_metric
from cbir_tf.search.index import Finder
from cbir_tf.types import Embeddings, Results

BLOCK = 1024


def query_expansion(
    queries: np.ndarray, positions: np.ndarray, gallery: Embeddings, alpha: float = 3.0
) -> np.ndarray:
    """Queries moved towards their nearest neighbours.

    Args:
        queries: (Q, D).
        positions: (Q, n) of the n nearest in the gallery, -1 for none.
        gallery: N vectors.
        alpha: the weight of a neighbour is its cosine similarity to this power; 0: equal weights.
            Neighbours of negative similarity have no weight.

    Returns:
        (Q, D) float32, each of the same length as its query.
    """
    lengths = np.linalg.norm(queries, axis=-1, keepdims=True)
    queries = _unit(queries)
    vectors = _unit(gallery.vectors[positions.ravel()]).reshape(*positions.shape, -1)
    similarities = np.einsum("qd,qnd->qn", queries, vectors)
    weights = np.where(
        (positions >= 0) & (similarities > 0), np.maximum(similarities, 0) ** alpha, 0
    )
    moved = _unit(queries + np.einsum("qn,qnd->qd", weights, vectors))
    return np.asarray(lengths * moved, dtype=np.float32)


def augmented(index: Finder, gallery: Embeddings, n: int = 10, alpha: float = 3.0) -> Embeddings:
    """The gallery with every vector moved towards its n nearest neighbours.

    Args:
        index: fitted to the gallery.
        gallery: N vectors.
        n: number of neighbours besides the vector itself; all others, if there are fewer.
        alpha: see `query_expansion`.

    Returns:
        N vectors of the same lengths, with the same ids, to fit an index to.
    """
    order = np.argsort(gallery.ids)
    gallery = gallery.take(order)
    n = min(n, len(gallery) - 1)
    if n < 1:
        return gallery
    moved = np.empty_like(gallery.vectors)
    everyone = np.arange(len(gallery))
    for rows in blocks(len(gallery), 1, BLOCK):
        found, _ = index.find(gallery.vectors[rows], n, everyone[rows], None)
        moved[rows] = query_expansion(gallery.vectors[rows], found, gallery, alpha)
    return Embeddings(gallery.ids, moved, gallery.labels)


def k_reciprocal(
    query: np.ndarray,
    candidates: Embeddings,
    metric: str = "cosine",
    k1: int = 20,
    k2: int = 6,
    weight: float = 0.3,
) -> Results:
    """Order candidates by the Jaccard distance of their k-reciprocal neighbourhoods to the query's.

    Two images are near if they share k-reciprocal neighbours: images that are among each other's k
    nearest neighbours. The paper uses neighbours in the whole gallery; here neighbours are sought
    among the query and its candidates, which needs (C + 1)^2 distances.

    Args:
        query: (D,).
        candidates: C vectors, the first results of a search.
        metric: cosine, euclidean, manhattan or minkowski-P.
        k1: number of neighbours in a neighbourhood.
        k2: number of neighbourhoods to average (local query expansion); 1: no averaging.
        weight: share of the original distance in the final one, lambda in the paper.

    Returns:
        (1, C) all candidates, ordered by the final distance: weight times the original distance
        divided by the query's largest, plus 1 - weight times the Jaccard distance.
    """
    order = np.argsort(candidates.ids)
    candidates = candidates.take(order)
    vectors = np.concatenate([np.asarray(query, np.float32)[None], candidates.vectors])
    arithmetic = find_metric(metric)
    prepared = arithmetic.prepare(vectors)
    distances = np.stack([between(arithmetic, each, prepared) for each in prepared])
    # As in the paper, each row is divided by its largest value before it becomes weights.
    largest = distances.max(axis=1, keepdims=True)
    scaled = distances / np.where(largest > 0, largest, 1)
    ranks = np.argsort(scaled, axis=1, kind="stable")
    sets = _expanded_sets(ranks, k1)
    features = np.where(sets, np.exp(-scaled), 0)
    features /= features.sum(axis=1, keepdims=True)
    if k2 > 1:
        features = features[ranks[:, :k2]].mean(axis=1)
    # Equals 1 - sum of minima / sum of maxima, without cancellation for similar neighbourhoods.
    largest_features = np.maximum(features[0], features[1:]).sum(axis=1)
    jaccard = np.abs(features[0] - features[1:]).sum(axis=1) / largest_features
    final = (weight * scaled[0, 1:] + (1 - weight) * jaccard).astype(np.float32)
    best = np.lexsort((candidates.ids, final))
    return Results(candidates.ids[best][None], final[best][None])


def _expanded_sets(ranks: np.ndarray, k1: int) -> np.ndarray:
    """(N, N) bool, R*(p, k1) of the paper: row p marks p's expanded neighbours."""
    whole, half = _reciprocal(ranks, k1), _reciprocal(ranks, int(np.around(k1 / 2)))
    joining = half.astype(np.float64)  # numbers, so that matrix products count shared neighbours
    joins = whole & (whole @ joining.T > 2 / 3 * joining.sum(axis=1))
    return np.asarray(whole | (joins @ joining > 0))


def _reciprocal(ranks: np.ndarray, k: int) -> np.ndarray:
    """(N, N) bool: p and q are among each other's k nearest neighbours."""
    near = np.zeros(ranks.shape, dtype=bool)
    np.put_along_axis(near, ranks[:, : k + 1], True, axis=1)
    return near & near.T


def _unit(vectors: np.ndarray) -> np.ndarray:
    vectors = np.asarray(vectors, dtype=np.float64)
    lengths = np.linalg.norm(vectors, axis=-1, keepdims=True)
    return vectors / np.where(lengths > 0, lengths, 1)
