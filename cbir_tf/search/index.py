"""What every index back end does, and the checks they share."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol, Self

import numpy as np

from cbir_tf.config.arguments import float_matrix, whole_number
from cbir_tf.errors import UserError
from cbir_tf.types import Embeddings, Results


class Finder(Protocol):
    """Searches a gallery for neighbours: an index, or a ranking of the whole gallery."""

    @property
    def gallery(self) -> Embeddings:
        """The embeddings that are searched, in order of id."""
        ...

    def find(
        self,
        queries: np.ndarray,
        k: int,
        self_positions: np.ndarray,
        candidate_positions: np.ndarray | None = None,
    ) -> tuple[np.ndarray, np.ndarray]:
        """The k nearest of the gallery for every query, by (distance, id); nothing is checked.

        Args:
            queries: (Q, D) float32.
            k: neighbours wanted for each.
            self_positions: (Q,) int64, position of the query itself in the gallery, which is left
                out of its neighbours; -1 for an out-of-gallery query.
            candidate_positions: (M,) int64 positions to choose from, ascending; None: all.

        Returns:
            (Q, k) int64 positions, -1 where there are fewer than k, and float32 distances, infinite
            there.
        """
        ...


class Index(Finder, Protocol):
    """A gallery that can be searched.

    Attributes:
        metric: name of the distance: cosine, euclidean, manhattan or minkowski-P.
    """

    metric: str

    @property
    def is_exact(self) -> bool:
        """Whether the nearest neighbours are always found."""
        ...

    def __len__(self) -> int:
        """Vectors in the gallery."""
        ...

    def fit(self, embeddings: Embeddings) -> Self:
        """Make these the gallery, in place of any earlier one."""
        ...

    def with_added(self, embeddings: Embeddings) -> Self:
        """An index of more vectors; this one stays as it is.

        Raises:
            UserError: an id is already there, or the vectors have another dimension.
        """
        ...

    def without(self, ids: Sequence[str] | np.ndarray) -> Self:
        """An index of fewer vectors; this one stays as it is.

        Raises:
            UserError: an id is not there.
        """
        ...

    def search(
        self,
        vectors: np.ndarray,
        k: int,
        query_ids: Sequence[str] | np.ndarray | None = None,
        where: Sequence[str] | np.ndarray | None = None,
    ) -> Results:
        """The k nearest of the gallery for every query, by (distance, id).

        Args:
            vectors: (Q, D) queries.
            k: neighbours wanted for each.
            query_ids: Q ids; the gallery's vector of that id, if there is one, is left out of that
                query's neighbours. Other vectors equal to the query stay.
            where: ids to choose from; None: the whole gallery. The search among them is exact with
                every back end, and rows are filled up with empty ids where there are fewer than k.

        Raises:
            UserError: empty gallery, vectors of another shape or not finite, k below one or above
                the number of vectors that a query can find (see `check_k`), or an id in `where`
                that is not in the gallery.
        """
        ...

    def save(self, folder: str | Path) -> None:
        """Write the index into a folder, in open formats; `cbir_tf.search.load_index` reads it.

        Raises:
            UserError: the folder cannot be written.
        """
        ...


def check_k(k: int, images: int, has_query: bool) -> None:
    """Check the number of neighbours.

    Args:
        k: neighbours wanted.
        images: in the gallery.
        has_query: whether the query is one of them, which it never finds.

    Raises:
        UserError: no image can be found, or fewer than k, or k is no whole number.
    """
    k = whole_number(k, "k")
    available = images - has_query
    if available < 1:
        raise UserError("the gallery holds nothing to search; add images to it")
    if k < 1:
        raise UserError(f"k={k}: ask for at least 1 neighbour")
    if k > available:
        reason = " (a query never finds itself)" if has_query else ""
        raise UserError(
            f"k={k}: the gallery holds only {available} to find{reason}; "
            f"ask for k={available} or fewer"
        )


def check_dimension(vectors: np.ndarray, dimension: int) -> None:
    """Check that queries have the shape (Q, dimension).

    Raises:
        UserError: they have another shape.
    """
    if vectors.ndim != 2 or vectors.shape[1] != dimension:
        raise UserError(
            f"query vectors have shape {vectors.shape}, the gallery's dimension is {dimension}; "
            f"give (queries, {dimension}), made by the model that made the gallery"
        )


def check_vectors(vectors: np.ndarray, dimension: int) -> np.ndarray:
    """Queries as (Q, D) float32.

    Raises:
        UserError: another shape, or a value that is not finite.
    """
    vectors = float_matrix(vectors, "query vectors")
    check_dimension(vectors, dimension)
    finite = np.isfinite(vectors).all(axis=1)
    if not finite.all():
        raise UserError(
            f"query vector {int(np.argmin(finite))} has a value that is not finite; "
            "check the model and the image it came from"
        )
    return vectors


def positions_of(ids: np.ndarray, gallery_ids: np.ndarray) -> np.ndarray:
    """The position of each id in the gallery.

    Args:
        ids: (Q,) strings.
        gallery_ids: (N,) strings, ascending.

    Returns:
        (Q,) int64 positions, -1 where the gallery has no such id.
    """
    if not len(gallery_ids):
        return np.full(len(ids), -1)
    found = np.searchsorted(gallery_ids, ids)
    found[found == len(gallery_ids)] = 0
    return np.where(gallery_ids[found] == ids, found, -1)


def known_positions(
    ids: Sequence[str] | np.ndarray, gallery_ids: np.ndarray, advice: str
) -> np.ndarray:
    """As `positions_of`, for ids that the gallery must hold.

    Raises:
        UserError: an id is not in the gallery; the message ends with `advice`.
    """
    wanted = np.atleast_1d(np.asarray(ids, dtype=np.str_))
    positions = positions_of(wanted, gallery_ids)
    if (positions < 0).any():
        missing = str(wanted[positions < 0][0])
        raise UserError(f"{missing!r} is not in the gallery; {advice}")
    return positions


def check_search(
    gallery: Embeddings,
    vectors: np.ndarray,
    k: int,
    query_ids: Sequence[str] | np.ndarray | None,
    where: Sequence[str] | np.ndarray | None,
) -> tuple[np.ndarray, int, np.ndarray, np.ndarray | None]:
    """The arguments of `Index.search` in a gallery with ids ascending, as those of `Finder.find`.

    Raises:
        UserError: as `Index.search`.
    """
    vectors, k = float_matrix(vectors, "query vectors"), whole_number(k, "k")
    self_positions = np.full(len(vectors), -1)
    if query_ids is not None:
        names = np.atleast_1d(np.asarray(query_ids, dtype=np.str_))
        if len(names) != len(vectors):
            raise UserError(f"{len(names)} query_ids for {len(vectors)} vectors; give one for each")
        self_positions = positions_of(names, gallery.ids)
    check_k(k, len(gallery), bool((self_positions >= 0).any()))
    queries = check_vectors(vectors, gallery.vectors.shape[1])
    if where is None:
        return queries, k, self_positions, None
    candidate_positions = known_positions(where, gallery.ids, "filter by ids that are there")
    return queries, k, self_positions, np.unique(candidate_positions)
