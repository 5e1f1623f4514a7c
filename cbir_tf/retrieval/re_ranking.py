"""Better order for the first candidates, by what their own neighbours say.

All work on the candidate list of each query alone, so memory is bounded by it, whatever the
gallery. Distances are those of the index's metric unless said otherwise.

- `query_expansion`: alpha query expansion (Radenovic et al. 2018, Fine-tuning CNN Image Retrieval
  with No Human Annotation, section 4.3): the query becomes the weighted mean of itself and its n
  nearest neighbours, each weighted by cosine similarity to the power alpha, and is searched again.
- `augmented`: database-side augmentation (Arandjelovic & Zisserman 2012, Three things everyone
  should know): the same done to every vector of the gallery, once, before it is fitted.
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
        alpha: power of the cosine similarity that weighs a neighbour; 0: all alike. What points
            away from the query has no weight.

    Returns:
        (Q, D) float32, each as long as its query was.
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
        n: neighbours that take part, besides the vector itself; fewer where there are fewer.
        alpha: as for `query_expansion`.

    Returns:
        N vectors, each as long as before, under the same ids; an index is fitted to them in turn.
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
    """The candidates of one query by the Jaccard distance of their k-reciprocal neighbourhoods.

    Two images are near if they have the same neighbours, and each is among the neighbours of the
    other's. The paper takes neighbours in the whole gallery; here they are those among the query
    and its candidates, which makes (C + 1)^2 distances.

    Args:
        query: (D,).
        candidates: C vectors, the first results of a search.
        metric: cosine, euclidean, manhattan or minkowski-P.
        k1: neighbours that make a neighbourhood.
        k2: neighbourhoods that are averaged (local query expansion); 1: none.
        weight: share of the original distance in the final one, lambda in the paper.

    Returns:
        (1, C) all candidates by the final distance: weight times the original one, which is divided
        by the largest of the query's, and 1 - weight times the Jaccard distance.
    """
    order = np.argsort(candidates.ids)
    candidates = candidates.take(order)
    vectors = np.concatenate([np.asarray(query, np.float32)[None], candidates.vectors])
    arithmetic = find_metric(metric)
    prepared = arithmetic.prepare(vectors)
    distances = np.stack([between(arithmetic, each, prepared) for each in prepared])
    # The paper divides each row by its largest value before it turns distances into weights.
    largest = distances.max(axis=1, keepdims=True)
    scaled = distances / np.where(largest > 0, largest, 1)
    ranks = np.argsort(scaled, axis=1, kind="stable")
    sets = _expanded_sets(ranks, k1)
    features = np.where(sets, np.exp(-scaled), 0)
    features /= features.sum(axis=1, keepdims=True)
    if k2 > 1:
        features = features[ranks[:, :k2]].mean(axis=1)
    # 1 - sum of minima / sum of maxima, without the cancellation of nearly equal neighbourhoods.
    largest_features = np.maximum(features[0], features[1:]).sum(axis=1)
    jaccard = np.abs(features[0] - features[1:]).sum(axis=1) / largest_features
    final = (weight * scaled[0, 1:] + (1 - weight) * jaccard).astype(np.float32)
    best = np.lexsort((candidates.ids, final))
    return Results(candidates.ids[best][None], final[best][None])


def _expanded_sets(ranks: np.ndarray, k1: int) -> np.ndarray:
    """(N, N) bool, R*(p, k1) of the paper: row p marks its expanded k-reciprocal neighbours."""
    whole, half = _reciprocal(ranks, k1), _reciprocal(ranks, int(np.around(k1 / 2)))
    joining = half.astype(np.float64)  # as numbers: products of matrices count what is shared
    joins = whole & (whole @ joining.T > 2 / 3 * joining.sum(axis=1))
    return np.asarray(whole | (joins @ joining > 0))


def _reciprocal(ranks: np.ndarray, k: int) -> np.ndarray:
    """(N, N) bool: q is among the k nearest of p beside itself, and p among those of q."""
    near = np.zeros(ranks.shape, dtype=bool)
    np.put_along_axis(near, ranks[:, : k + 1], True, axis=1)
    return near & near.T


def _unit(vectors: np.ndarray) -> np.ndarray:
    vectors = np.asarray(vectors, dtype=np.float64)
    lengths = np.linalg.norm(vectors, axis=-1, keepdims=True)
    return vectors / np.where(lengths > 0, lengths, 1)
