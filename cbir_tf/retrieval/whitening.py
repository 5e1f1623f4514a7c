"""Whitening: PCA, standardisation or whitening of vectors for search, fitted to stored vectors.

Vectors are centred: the mean of the fitted vectors is subtracted first (Jegou & Chum 2012, Negative
evidences and co-occurences in image retrieval: the benefit of PCA and whitening). The cosine
distance then compares directions from the mean instead of directions from the origin, to which the
common mean contributes; even with all components it is another distance. The euclidean distance
stays the same with all components and no whitening; with fewer components it lacks the differences
along the directions left out. Manhattan and other Minkowski distances change, as the axes are
rotated.

Whitened dimensions have equal variance, which gives noisy last components as much weight as the
first. Attenuated whitening divides each dimension by a power of its standard deviation instead,
between 0 and 1 (Mukundan et al. 2019, Understanding and improving kernel local descriptors).

Standardized dimensions have equal variance too: each original dimension is divided by its standard
deviation, before PCA and whitening.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from sklearn.decomposition import PCA

from cbir_tf.config.search import Search
from cbir_tf.errors import UserError
from cbir_tf.progress import logger
from cbir_tf.search.index import check_vectors
from cbir_tf.storage.files import replacing

FILE_NAME = "projection.npz"
BLOCK = 2**16


@dataclass(frozen=True, eq=False)
class Whitening:
    """Standardisation, rotation to the principal axes, and whitening, as one linear map.

    Attributes:
        mean: (D,) float64, subtracted first.
        directions: (D, C) float64, the matrix that centred vectors are multiplied by: principal
            directions, the largest variance first, of length 1; with whitening, divided by that
            power of the standard deviation along them; with standardisation, each row divided by
            the standard deviation of its dimension.
        components: configured number of components; None: all.
        whiten: the power, 0..1; with 1 every new dimension has variance 1.
        standardize: whether every original dimension is scaled to variance 1 first.
        fitted_to: SHA-256 of the fitted vectors.
    """

    mean: np.ndarray
    directions: np.ndarray
    components: int | None
    whiten: float
    standardize: bool
    fitted_to: str

    @classmethod
    def fit(
        cls,
        vectors: np.ndarray,
        components: int | None = None,
        whiten: float = 0.0,
        standardize: bool = False,
    ) -> Whitening:
        """Fit a whitening to vectors.

        The same vectors give the same whitening: all eigenvectors are computed exactly, without a
        random start.

        Args:
            vectors: (N, D) float32.
            components: number of dimensions to keep; None: min(N, D), with whitening only the
                directions along which the vectors differ.
            whiten: divide every new dimension by this power of its standard deviation, 0..1.
            standardize: scale every original dimension to variance 1 first; a constant dimension is
                not scaled. Without components and whiten the axes are not rotated.

        Raises:
            UserError: fewer than two vectors, too many components, or, with whitening, too few
                directions along which the vectors differ.
        """
        vectors = np.asarray(vectors, dtype=np.float32)
        count, dimension = vectors.shape
        most = min(count, dimension)
        if count < 2:
            raise UserError(f"search.pca: {count} stored vectors are too few; extract two or more")
        if components is not None and components > most:
            raise UserError(
                f"search.pca={components}: {count} stored vectors of dimension {dimension} have at "
                f"most {most} components; set it to {most} or less, or extract more images"
            )
        values = vectors.astype(np.float64)
        mean, scale = values.mean(axis=0), np.ones(dimension)
        # Smaller differences are rounding errors of float32.
        rounding = np.finfo(np.float32).eps * np.abs(values).max(axis=0)
        if standardize:
            deviations = values.std(axis=0)
            scale = np.where(deviations > rounding, deviations, 1)
        # The memory order is that of a loaded whitening, so that sums are rounded equally.
        directions = np.diag(1 / scale)
        if components is not None or whiten or not standardize:
            least = (rounding / scale).max()
            turned = _components((values - mean) / scale, components, whiten, least)
            directions = np.ascontiguousarray(turned / scale[:, np.newaxis])
        return cls(mean, directions, components, float(whiten), standardize, _digest(vectors))

    def __call__(self, vectors: np.ndarray) -> np.ndarray:
        """Project vectors.

        Args:
            vectors: (Q, D), from the embedder.

        Returns:
            (Q, C) float32.

        Raises:
            UserError: vectors of another dimension, or values that are not finite.
        """
        vectors = check_vectors(vectors, len(self.mean))
        projected = np.empty((len(vectors), self.directions.shape[1]), dtype=np.float32)
        for start in range(0, len(vectors), BLOCK):
            some = slice(start, start + BLOCK)
            projected[some] = (vectors[some] - self.mean) @ self.directions
        return projected

    @cached_property
    def digest(self) -> str:
        """SHA-256 of the whitening."""
        about = json.dumps([self.components, self.whiten, self.standardize, self.fitted_to])
        return _digest(self.mean, self.directions, about)

    def is_of(
        self, vectors: np.ndarray, components: int | None, whiten: float, standardize: bool
    ) -> bool:
        """Whether it was fitted to these (N, D) float32 vectors, with these settings."""
        settings = (self.components, self.whiten, self.standardize)
        same = settings == (components, whiten, standardize)
        return same and self.fitted_to == _digest(vectors)

    def save(self, folder: Path) -> None:
        """Write a file of NumPy arrays into this folder, completely or not at all.

        Raises:
            UserError: the file cannot be written.
        """
        with replacing(folder / FILE_NAME) as temporary, temporary.open("wb") as file:
            np.savez(
                file,
                mean=self.mean,
                directions=self.directions,
                components=-1 if self.components is None else self.components,
                whiten=self.whiten,
                standardize=self.standardize,
                fitted_to=self.fitted_to,
                digest=self.digest,
            )

    @classmethod
    def load(cls, folder: Path) -> Whitening:
        """Read the file that `save` wrote into this folder.

        Raises:
            UserError: the file is missing or damaged.
        """
        path = folder / FILE_NAME
        if not path.is_file():
            raise UserError(f"{path}: no saved whitening; run cbir extract")
        try:
            with np.load(path, allow_pickle=False) as file:
                components = int(file["components"])
                whitening = cls(
                    file["mean"],
                    file["directions"],
                    None if components < 0 else components,
                    float(file["whiten"]),
                    bool(file["standardize"]),
                    str(file["fitted_to"]),
                )
                intact = str(file["digest"]) == whitening.digest
        except Exception:  # NumPy and zipfile raise many kinds for a damaged file
            intact = False
        if not intact:
            raise UserError(f"{path}: damaged; run cbir extract")
        return whitening


def whitening_for(vectors: np.ndarray, search: Search, folder: Path) -> Whitening | None:
    """The configured whitening of the stored vectors.

    The saved one, if it was fitted to the same vectors with the same settings; otherwise a new one.
    So when images are added or removed, the whitening changes, and with it all whitened vectors:
    an index over them must be fitted again, and a threshold must be calibrated again.

    Args:
        vectors: (N, D) float32, all stored vectors, from the embedder.
        search: pca, whiten and standardize are used.
        folder: folder of the saved whitening, which may be missing.

    Returns:
        None if none is configured.

    Raises:
        UserError: from `Whitening.fit`.
    """
    if not is_whitened(search):
        return None
    settings = (search.pca, search.whiten, search.standardize)
    if not (folder / FILE_NAME).is_file():
        logger.info("fitting the whitening to %d images", len(vectors))
        return Whitening.fit(vectors, *settings)
    try:
        saved = Whitening.load(folder)
        if saved.is_of(vectors, *settings):
            return saved
        reason = "the stored images or the settings have changed"
    except UserError as error:
        reason = str(error).partition(";")[0]
    logger.info("the whitening is fitted again: %s", reason)
    return Whitening.fit(vectors, *settings)


def is_whitened(search: Search) -> bool:
    """Whether vectors are changed before they are compared."""
    return (search.pca, search.whiten, search.standardize) != (None, 0, False)


def _components(
    centred: np.ndarray, components: int | None, whiten: float, least: float
) -> np.ndarray:
    """(D, C) principal directions of (N, D) centred vectors.

    Args:
        centred: (N, D) float64.
        components: C, or None for all.
        whiten: each direction is divided by this power of its standard deviation.
        least: with whitening, directions with at most this standard deviation are left out.
    """
    count, dimension = centred.shape
    solver = "covariance_eigh" if count > dimension else "full"
    with np.errstate(invalid="ignore"):  # 0 / 0 in the explained shares of zero variance
        model = PCA(components or min(count, dimension), svd_solver=solver).fit(centred)
    directions: np.ndarray = model.components_.T
    if not whiten:
        return directions
    deviations = np.sqrt(model.explained_variance_)
    differing = int((deviations > least).sum())
    if not differing or differing < (components or 0):
        raise UserError(
            f"search.whiten: the {count} stored vectors differ along only {differing} directions; "
            "lower search.pca, or set search.whiten to 0"
        )
    whitened: np.ndarray = directions[:, :differing] / deviations[:differing] ** whiten
    return whitened


def _digest(*values: np.ndarray | str) -> str:
    state = hashlib.sha256()
    for value in values:
        if isinstance(value, str):
            state.update(value.encode())
        else:
            state.update(f"{value.dtype.str} {value.shape} ".encode())
            state.update(np.ascontiguousarray(value).data)
    return state.hexdigest()
