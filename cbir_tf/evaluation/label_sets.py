"""Images with several labels: what they share is what makes one relevant to another."""

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
            UserError: an id has no set, not even an empty one.
        """
        positions = positions_of(ids, self.ids)
        if (positions < 0).any():
            raise UserError(
                f"{str(ids[positions < 0][0])!r} has no set of labels; give it one, which may be "
                "empty"
            )
        return self.members[positions]

    def gains(self, query_ids: np.ndarray, gallery_ids: np.ndarray) -> np.ndarray:
        """How alike the sets are: labels shared, as a share of the labels that either has.

        This is Jaccard's index; above 0, at least one label is shared. Two empty sets share
        nothing: 0.

        Returns:
            (Q, N) float32 in 0..1.
        """
        queries, gallery = self.rows(query_ids), self.rows(gallery_ids)
        shared = queries @ gallery.T
        either = queries.sum(axis=1)[:, None] + gallery.sum(axis=1) - shared
        return np.divide(shared, either, out=np.zeros_like(shared), where=either > 0)
