"""Which classes a search confuses, judged by the label of the nearest neighbour."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from scipy.sparse import coo_array, csr_array

from cbir_tf.config.arguments import whole_number
from cbir_tf.errors import UserError
from cbir_tf.search.index import positions_of
from cbir_tf.storage.files import write_text
from cbir_tf.types import UNLABELLED, Embeddings, Results


@dataclass(frozen=True)
class Mistake:
    """A query whose nearest neighbour has another class.

    Attributes:
        query: id of the query.
        neighbour: id of its nearest neighbour.
        query_label: label of the query.
        neighbour_label: label of the neighbour.
        distance: distance between the two.
    """

    query: str
    neighbour: str
    query_label: int
    neighbour_label: int
    distance: float


def confusion_matrix(
    neighbours: Results, queries: Embeddings, gallery: Embeddings, classes: int
) -> csr_array:
    """M[i, j] = number of queries with label i whose nearest neighbour has label j.

    Args:
        neighbours: a row for each query; only the nearest counts.
        queries: labelled embeddings.
        gallery: labelled embeddings in which the neighbours were found.
        classes: number of classes, C.

    Returns:
        Sparse (C, C) int64, which holds at most a number for each query, however many classes;
        `.toarray()` gives the whole of few.

    Raises:
        UserError: a label is missing, or there are fewer classes than the labels count.

    Example:
        >>> gallery = Embeddings(["a", "b"], [[0], [1]], [0, 1])
        >>> queries = Embeddings(["q", "r", "s"], [[0], [1], [1]], [0, 1, 0])
        >>> found = Results(np.array([["a"], ["b"], ["b"]]), np.zeros((3, 1), np.float32))
        >>> confusion_matrix(found, queries, gallery, classes=2).toarray().tolist()
        [[1, 1], [0, 1]]
    """
    nearest = _nearest_labels(neighbours, queries, gallery)
    classes = whole_number(classes, "classes", 0)
    most = int(max(queries.labels.max(initial=-1), nearest.max(initial=-1)))
    if most >= classes:
        raise UserError(f"confusion matrix: classes={classes}, but there is a label {most}")
    ones = np.ones(len(nearest), dtype=np.int64)
    return coo_array((ones, (queries.labels, nearest)), shape=(classes, classes)).tocsr()


def write_confusions(path: Path, matrix: csr_array, class_names: Sequence[str]) -> None:
    """Write the counts of a confusion matrix that are not 0 as CSV, the wrong ones first.

    Columns: class (of the query), class of the nearest neighbour, queries, share of the queries of
    the class. The largest count comes first; classes found right follow those found wrong.

    Args:
        path: file to write.
        matrix: of `confusion_matrix`.
        class_names: C names.

    Raises:
        UserError: the file cannot be written.
    """
    found = matrix.tocoo()
    true, nearest = found.row, found.col
    totals = matrix.sum(axis=1)
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["class", "nearest neighbour's class", "queries", "share"])
    for row in np.lexsort((nearest, true, -found.data, true == nearest)).tolist():
        share = found.data[row] / totals[true[row]]
        names = class_names[true[row]], class_names[nearest[row]]
        writer.writerow([*names, found.data[row], f"{share:.4f}"])
    write_text(path, text.getvalue())


def mistakes(neighbours: Results, queries: Embeddings, gallery: Embeddings) -> list[Mistake]:
    """Queries whose nearest neighbour has another class, the nearest first.

    Args:
        neighbours: a row for each query; only the nearest counts.
        queries: labelled embeddings.
        gallery: labelled embeddings in which the neighbours were found.

    Returns:
        The mistakes sorted by (distance, query id): the smaller the distance, the more confident
        the mistake.

    Raises:
        UserError: a label is missing.

    Example:
        >>> gallery = Embeddings(["a", "b"], [[0], [1]], [0, 1])
        >>> queries = Embeddings(["q", "r"], [[0], [1]], [0, 0])
        >>> found = Results(np.array([["a"], ["b"]]), np.zeros((2, 1), np.float32))
        >>> [(each.query, each.neighbour) for each in mistakes(found, queries, gallery)]
        [('r', 'b')]
    """
    nearest = _nearest_labels(neighbours, queries, gallery)
    wrong = [
        Mistake(
            query=str(queries.ids[row]),
            neighbour=str(neighbours.ids[row, 0]),
            query_label=int(queries.labels[row]),
            neighbour_label=int(nearest[row]),
            distance=float(neighbours.distances[row, 0]),
        )
        for row in np.flatnonzero(nearest != queries.labels)
    ]
    return sorted(wrong, key=lambda mistake: (mistake.distance, mistake.query))


def _nearest_labels(neighbours: Results, queries: Embeddings, gallery: Embeddings) -> np.ndarray:
    """(Q,) labels of the nearest neighbours."""
    if len(neighbours) != len(queries):
        raise UserError(f"{len(neighbours)} rows of neighbours for {len(queries)} queries")
    order = np.argsort(gallery.ids)
    positions = positions_of(neighbours.ids[:, 0], gallery.ids[order])
    if (positions < 0).any():
        unknown = str(neighbours.ids[positions < 0, 0][0])
        raise UserError(f"the neighbour {unknown!r} is not in the gallery; give the one searched")
    nearest: np.ndarray = gallery.labels[order][positions]
    for ids, labels in ((queries.ids, queries.labels), (neighbours.ids[:, 0], nearest)):
        if (labels == UNLABELLED).any():
            raise UserError(
                f"confusion matrix: {str(ids[labels == UNLABELLED][0])!r} has no label; "
                "use labelled images only"
            )
    return nearest
