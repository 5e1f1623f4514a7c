"""The share of the variance of embeddings explained by their principal components."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter

from cbir_tf.parallel import blocks
from cbir_tf.plots.style import (
    INK,
    MUTED,
    PALETTE,
    SMALL_SIZE,
    TITLE_SIZE,
    fitted,
    look,
    new_figure,
    note,
    padded,
    save,
)

MARKED = (0.5, 0.9, 0.99)
_FEW = 30  # up to this number each component has a dot
_BLOCK = 8192


def explained_variance(vectors: np.ndarray) -> np.ndarray:
    """The share of the variance explained by the first 1, 2, ... principal components.

    Takes a few megabytes beside the vectors, but for a square of the smaller of N and D.

    Args:
        vectors: (N, D) finite numbers.

    Returns:
        (min(N, D),) float64, ascending to 1; empty where the vectors are all alike.

    Example:
        >>> explained_variance(np.array([[3, 0], [-3, 0], [0, 1], [0, -1]])).round(2).tolist()
        [0.9, 1.0]
    """
    vectors = np.asarray(vectors)
    if len(vectors) < 2 or not np.ptp(vectors, axis=0).any():
        return np.empty(0)
    mean = vectors.mean(axis=0, dtype=np.float64)
    # Both products have the same eigenvalues except zeros.
    if len(vectors) < vectors.shape[1]:
        centred = vectors - mean
        product = centred @ centred.T
    else:
        product = np.zeros((vectors.shape[1], vectors.shape[1]))
        for rows in blocks(len(vectors), 1, _BLOCK):
            block = vectors[rows] - mean
            product += block.T @ block
    variances = np.linalg.eigvalsh(product)[::-1].clip(min=0)
    shares: np.ndarray = np.cumsum(variances) / variances.sum()
    return shares


def variance_curve(path: Path, shares: np.ndarray, title: str = "Explained variance") -> Path:
    """Write the explained variance over the number of principal components.

    Marked is how many hold 50, 90 and 99 % of it.

    Args:
        path: where to write.
        shares: as `explained_variance` gives them.
        title: above the curve.

    Raises:
        UserError: the file cannot be written.
    """
    return save(_figure(np.asarray(shares), title), path)


@look()
def _figure(shares: np.ndarray, title: str) -> Figure:
    if not len(shares):
        return note("The vectors are all alike: there is no variance to explain.", title)
    figure = new_figure(7.2, 4.4, layout=padded())
    axes = figure.subplots()
    axes.plot(
        np.arange(1, len(shares) + 1),
        shares,
        color=PALETTE[0],
        marker="o" if len(shares) <= _FEW else "",
        markersize=4,
    )
    for share in MARKED:
        # Rounding may leave the last share a bit below 1.
        needed = int(np.searchsorted(shares, min(share, shares[-1]))) + 1
        corner = ([0, needed, needed], [share, share, 0])
        axes.plot(*corner, color=MUTED, linewidth=0.8, linestyle=(0, (3, 3)), zorder=1)
        axes.annotate(
            f"{share:.0%}: {needed:,}",
            (needed, share),
            (5, -4),
            textcoords="offset points",
            va="top",
            size=SMALL_SIZE,
            color=INK,
        )
    axes.set_title(fitted(title, 6.4, TITLE_SIZE, "bold"))
    axes.set_xlabel("principal components")
    axes.set_ylabel("share of the variance")
    axes.set_xlim(0, len(shares) + 0.5)
    axes.set_ylim(0, 1.02)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, steps=[1, 2, 5, 10]))
    axes.yaxis.set_major_formatter(PercentFormatter(1, decimals=0))
    axes.grid(axis="y")
    return figure
