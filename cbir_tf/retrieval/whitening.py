"""Whitening: fewer, standardized or whitened dimensions for searching, fitted to stored vectors.

Vectors are centred: the mean of those it was fitted to is subtracted first, as the directions along
which they vary most are seen from there (Jegou & Chum 2012, Negative evidences and co-occurences in
image retrieval: the benefit of PCA and whitening). So the cosine distance after it compares the
directions from the mean, and no longer those from the origin, that all have some of the mean in
common; it is another distance than before, even with all components. The euclidean distance is the
one before with all components and no whitening, less what lies along the directions left out with
fewer. Manhattan and other Minkowski distances depend on the axes, which are turned.

Whitened dimensions count alike however much they vary, which gives the noise of the last as much
weight as what the first tell; each can be divided by a power of its standard deviation instead,
between 0 and 1 (Mukundan et al. 2019, Understanding and improving kernel local descriptors, call it
attenuated).

Standardized dimensions count alike too: each is divided by its standard deviation before anything
else.
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
    """A scaling of the axes, a turn of them to where vectors vary, a scaling of the new ones.

    Attributes:
        mean: (D,) float64, taken off first.
        directions: (D, C) float64, what centred vectors are multiplied with: orthogonal, the one of
            the largest variance first; each of length 1, or whitened, divided by that power of the
            standard deviation along it; where vectors are standardized first, every row is divided
            by the standard deviation of its dimension.
        components: number asked for; None: all.
        whiten: the power, 0..1; with 1 every new dimension has variance 1.
        standardize: whether every old dimension has had variance 1.
        fitted_to: SHA-256 of the vectors it was fitted to.
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
        """Find the directions along which vectors vary.

        The same vectors give the same whitening: the eigenvectors are computed in full, not
        sought from a random start.

        Args:
            vectors: (N, D) float32.
            components: dimensions to keep; None: all, which are the smaller of N and D, and
                whitened, only those along which the vectors differ.
            whiten: divide every new dimension by this power of its standard deviation, 0..1.
            standardize: scale every old dimension to variance 1 first; one in which the vectors do
                not differ stays as it is. With nothing else the axes are not turned.

        Raises:
            UserError: fewer than two vectors, more components than there are, or whitened,
                components along which the vectors do not differ.
        """
        vectors = np.asarray(vectors, dtype=np.float32)
        count, dimension = vectors.shape
        most = min(count, dimension)
        if count < 2:
            raise UserError(f"search.pca: {count} stored vectors are too few; extract two or more")
        if components is not None and components > most:
            raise UserError(
                f"search.pca={components}: {count} stored vectors of dimension {dimension} have "
                f"no more than {most} components; set it to {most} or less, or extract more images"
            )
        values = vectors.astype(np.float64)
        mean, scale = values.mean(axis=0), np.ones(dimension)
        # Smaller differences are float32's rounding.
        rounding = np.finfo(np.float32).eps * np.abs(values).max(axis=0)
        if standardize:
            deviations = values.std(axis=0)
            scale = np.where(deviations > rounding, deviations, 1)
        # In one order in memory, now and when loaded, sums are rounded alike.
        directions = np.diag(1 / scale)
        if components is not None or whiten or not standardize:
            least = (rounding / scale).max()
            turned = _components((values - mean) / scale, components, whiten, least)
            directions = np.ascontiguousarray(turned / scale[:, np.newaxis])
        return cls(mean, directions, components, float(whiten), standardize, _digest(vectors))

    def __call__(self, vectors: np.ndarray) -> np.ndarray:
        """Project vectors.

        Args:
            vectors: (Q, D), as the embedder makes them.

        Returns:
            (Q, C) float32.

        Raises:
            UserError: another dimension, or a value that is not finite.
        """
        vectors = check_vectors(vectors, len(self.mean))
        projected = np.empty((len(vectors), self.directions.shape[1]), dtype=np.float32)
        for start in range(0, len(vectors), BLOCK):
            some = slice(start, start + BLOCK)
            projected[some] = (vectors[some] - self.mean) @ self.directions
        return projected

    @cached_property
    def digest(self) -> str:
        """SHA-256 of all that it is."""
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
        """Write a file of NumPy arrays into this folder, whole or not at all.

        Raises:
            UserError: it cannot be written.
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
        """Read what `save` wrote into this folder.

        Raises:
            UserError: missing or damaged.
        """
        path = folder / FILE_NAME
        if not path.is_file():
            raise UserError(f"{path}: no saved whitening; run cbir extract again")
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
        except Exception:  # NumPy and zipfile raise all sorts of things over a damaged file
            intact = False
        if not intact:
            raise UserError(f"{path}: damaged; run cbir extract again")
        return whitening


def whitening_for(vectors: np.ndarray, search: Search, folder: Path) -> Whitening | None:
    """The whitening that is configured, of the vectors that are stored now.

    The saved one, if it was fitted to these very vectors with these settings; otherwise it is
    fitted. So whenever images are added or removed, the whitening changes, and with it all whitened
    vectors: an index over them has to be fitted again, and a threshold to be calibrated again.

    Args:
        vectors: (N, D) float32, all that are stored, as the embedder made them.
        search: of which pca, whiten and standardize are looked at.
        folder: where it was saved, if it was.

    Returns:
        None where none is configured.

    Raises:
        UserError: as `Whitening.fit`.
    """
    settings = (search.pca, search.whiten, search.standardize)
    if settings == (None, 0, False):
        return None
    try:
        saved = Whitening.load(folder)
        if saved.is_of(vectors, *settings):
            return saved
        reason = f"{folder / FILE_NAME}: of other vectors or settings"
    except UserError as error:
        reason = str(error)
    logger.info("%s: fitting the whitening again", reason)
    return Whitening.fit(vectors, *settings)


def _components(
    centred: np.ndarray, components: int | None, whiten: float, least: float
) -> np.ndarray:
    """(D, C) principal directions of (N, D) centred vectors.

    Args:
        centred: (N, D) float64.
        components: C, or None for all.
        whiten: power of the standard deviation along each that it is divided by.
        least: whitened, those with a standard deviation no larger are left out.
    """
    count, dimension = centred.shape
    solver = "covariance_eigh" if count > dimension else "full"
    with np.errstate(invalid="ignore"):  # shares of no variance
        model = PCA(components or min(count, dimension), svd_solver=solver).fit(centred)
    directions: np.ndarray = model.components_.T
    if not whiten:
        return directions
    deviations = np.sqrt(model.explained_variance_)
    differing = int((deviations > least).sum())
    if not differing or differing < (components or 0):
        raise UserError(
            f"search.whiten: the {count} stored vectors differ along no more than "
            f"{differing} directions; lower search.pca, or leave search.whiten at 0"
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
