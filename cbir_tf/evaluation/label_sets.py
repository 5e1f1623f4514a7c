"""Images with several labels: relevance and gain from the labels that two images share."""

from __future__ import annotations

from collections.abc import Collection, Mapping

import numpy as np

from cbir_tf.errors import UserError
from cbir_tf.search.index import positions_of


class LabelSets:
    """The labels of images, as a matrix.

    Args:
        labels: the labels of each image by id; an image may have none.

    Attributes:
        ids: (N,) ids, ascending.
        names: C labels, ascending.
        members: (N, C) float32, 1 where an image has the label.

    Example:
        >>> sets = LabelSets({"a": ["cat", "dog"], "b": ["dog"], "c": []})
        >>> sets.rows(np.array(["a", "c"])).tolist()
        [[1.0, 1.0], [0.0, 0.0]]
        >>> sets.gains(np.array(["a"]), np.array(["a", "b", "c"])).tolist()
        [[1.0, 0.5, 0.0]]
    """

    def __init__(self, labels: Mapping[str, Collection[str]]) -> None:
        self.ids = np.array(sorted(labels), dtype=np.str_)
        self.names = sorted({name for each in labels.values() for name in each})
        column = {name: number for number, name in enumerate(self.names)}
        self.members = np.zeros((len(self.ids), len(self.names)), dtype=np.float32)
        for row, id_ in enumerate(self.ids.tolist()):
            self.members[row, [column[name] for name in labels[id_]]] = 1

    def rows(self, ids: np.ndarray) -> np.ndarray:
        """(N, C) float32 members, a row for each of these (N,) ids.

        Raises:
            UserError: an id has no entry.
        """
        positions = positions_of(ids, self.ids)
        if (positions < 0).any():
            raise UserError(
                f"label sets: {str(ids[positions < 0][0])!r} has no set of labels; add one, which "
                "may be empty"
            )
        members: np.ndarray = self.members[positions]
        return members

    def gains(self, query_ids: np.ndarray, gallery_ids: np.ndarray) -> np.ndarray:
        """Jaccard index of every two sets, |A and B| / |A or B|; 0 for two empty sets.

        It is above 0 exactly where an item is relevant: where at least one label is shared.

        Args:
            query_ids: (Q,) ids.
            gallery_ids: (N,) ids.

        Returns:
            (Q, N) float32 in 0..1.

        Raises:
            UserError: an id has no entry.
        """
        queries, gallery = self.rows(query_ids), self.rows(gallery_ids)
        shared = queries @ gallery.T
        either = queries.sum(axis=1)[:, None] + gallery.sum(axis=1) - shared
        index: np.ndarray = np.divide(shared, either, out=np.zeros_like(shared), where=either > 0)
        return index
