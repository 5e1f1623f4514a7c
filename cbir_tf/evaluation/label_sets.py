"""Images with several labels: relevance and gain from the labels that two images share."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from itertools import chain

import numpy as np
from scipy.sparse import csr_array

from cbir_tf.config.arguments import mapping, texts
from cbir_tf.errors import UserError
from cbir_tf.search.index import positions_of


class LabelSets:
    """The labels of images, as a matrix.

    Args:
        labels: the labels of each image by id, one text or several; an image may have none.

    Attributes:
        ids: (N,) ids, ascending.
        names: C labels, ascending.
        members: sparse (N, C) float32, 1 where an image has the label: memory by the labels that
            the images have, not by N times C.

    Example:
        >>> sets = LabelSets({"a": ["cat", "dog"], "b": ["dog"], "c": []})
        >>> sets.rows(np.array(["a", "c"])).toarray().tolist()
        [[1.0, 1.0], [0.0, 0.0]]
        >>> sets.gains(np.array(["a"]), np.array(["a", "b", "c"])).tolist()
        [[1.0, 0.5, 0.0]]
    """

    def __init__(self, labels: Mapping[str, Collection[str]]) -> None:
        mapping(labels, "label_sets", "the labels of each image by id")
        labels = {id_: texts(each, f"labels of {id_!r}") for id_, each in labels.items()}
        self.ids = np.array(sorted(labels), dtype=np.str_)
        self.names = sorted({name for each in labels.values() for name in each})
        column = {name: number for number, name in enumerate(self.names)}
        columns = [sorted({column[name] for name in labels[id_]}) for id_ in self.ids.tolist()]
        ends = np.cumsum([0, *map(len, columns)])
        indices = np.array(list(chain.from_iterable(columns)), dtype=np.int64)
        ones = np.ones(len(indices), dtype=np.float32)
        self.members = csr_array((ones, indices, ends), shape=(len(self.ids), len(self.names)))

    def rows(self, ids: np.ndarray) -> csr_array:
        """Sparse (N, C) float32 members, a row for each of these (N,) ids.

        Raises:
            UserError: an id has no entry.
        """
        positions = positions_of(ids, self.ids)
        if (positions < 0).any():
            raise UserError(
                f"label sets: {str(ids[positions < 0][0])!r} has no set of labels; add one, which "
                "may be empty"
            )
        return self.members[positions]

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
        shared: np.ndarray = (queries @ gallery.T).toarray()
        either = queries.sum(axis=1)[:, None] + gallery.sum(axis=1) - shared
        index: np.ndarray = np.divide(shared, either, out=np.zeros_like(shared), where=either > 0)
        return index
