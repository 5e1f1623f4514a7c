"""Layouts: projections of vectors of any dimension to the plane."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterable
from typing import Literal

import numpy as np
from sklearn.decomposition import PCA
from sklearn.manifold import TSNE

Method = Literal["umap", "tsne", "pca"]

# With fewer points a neighbourhood is the whole set, and UMAP's spectral initialisation needs more
# points than eigenvectors.
FEWEST = 5
_UMAP_NEIGHBOURS = 15
_TSNE_PERPLEXITY = 30.0
_TSNE_DIMENSIONS = 50  # reduced to by PCA first, as van der Maaten and Hinton (2008) do

_logger = logging.getLogger(__name__)


def spread(labels: Iterable[int], count: int, seed: int) -> np.ndarray:
    """(at most count,) int64 random positions of images to show, classes in turn."""
    labels = np.asarray(labels)
    order = np.random.default_rng(seed).permutation(len(labels))
    turn = np.zeros(len(labels), dtype=int)
    for label in np.unique(labels):
        members = order[labels[order] == label]
        turn[members] = np.arange(len(members))
    return order[np.argsort(turn[order], kind="stable")][:count]


def project(vectors: np.ndarray, method: Method = "umap", seed: int = 0) -> np.ndarray:
    """Lay out vectors in the plane; the same vectors, method and seed give the same points.

    Too few points for UMAP or t-SNE, or vectors that are all alike, are laid out by PCA instead,
    with a warning in the log.

    Args:
        vectors: (N, D) finite numbers.
        method: umap (McInnes et al., arXiv:1802.03426), tsne (van der Maaten and Hinton, 2008)
            or pca.
        seed: of the random choices.

    Returns:
        (N, 2) float32.
    """
    vectors = np.asarray(vectors, dtype=np.float32)
    if vectors.ndim != 2 or not np.isfinite(vectors).all():
        raise ValueError(f"vectors must be (N, D) and finite, got shape {vectors.shape}")
    layouts = {"umap": _umap, "tsne": _tsne, "pca": _pca}
    if method not in layouts:
        raise ValueError(f"no layout {method!r}; choose one of: {', '.join(layouts)}")
    possible = possible_method(vectors, method)
    if possible != method:
        _logger.warning(
            "%s needs at least %d distinct vectors: laid out by PCA instead", method, FEWEST
        )
    return layouts[possible](vectors, seed).astype(np.float32)


def possible_method(vectors: np.ndarray, method: Method) -> Method:
    """The method that `project` uses for these vectors: pca if they are too few."""
    return method if method == "pca" or len(np.unique(vectors, axis=0)) >= FEWEST else "pca"


def _umap(vectors: np.ndarray, seed: int) -> np.ndarray:
    with warnings.catch_warnings():
        # UMAP warns that a seed limits it to one core, and few points its neighbours; numba of
        # its internals.
        warnings.simplefilter("ignore")
        from umap import UMAP

        layout = UMAP(
            n_neighbors=min(_UMAP_NEIGHBOURS, len(vectors) - 1),
            init="spectral" if len(vectors) > 3 * FEWEST else "random",
            random_state=seed,
            n_jobs=1,
        )
        points: np.ndarray = layout.fit_transform(vectors)
    return points


def _tsne(vectors: np.ndarray, seed: int) -> np.ndarray:
    if min(vectors.shape) > _TSNE_DIMENSIONS:
        vectors = PCA(_TSNE_DIMENSIONS, random_state=seed).fit_transform(vectors)
    layout = TSNE(
        perplexity=min(_TSNE_PERPLEXITY, (len(vectors) - 1) / 3),
        init="pca" if vectors.shape[1] > 1 else "random",
        random_state=seed,
    )
    points: np.ndarray = layout.fit_transform(vectors)
    return points


def _pca(vectors: np.ndarray, seed: int) -> np.ndarray:
    return principal_components(vectors, 2, seed)


def principal_components(vectors: np.ndarray, dimensions: int, seed: int = 0) -> np.ndarray:
    """(N, dimensions) first principal components; missing components are 0."""
    points = np.zeros((len(vectors), dimensions))
    components = min(dimensions, *vectors.shape)
    # Equal vectors have no principal direction: all points stay at the origin.
    if len(vectors) > 1 and components and np.ptp(vectors, axis=0).any():
        points[:, :components] = PCA(components, random_state=seed).fit_transform(vectors)
    return points
