"""The first of two steps by another run: its model and its classes, of the same pictures.

The other run may be trained on anything, as on scenes. A query is encoded by its model and
classified by a classifier of its training images; the images of the gallery are of the classes that
the same classifier says, from the vectors in the other run's store. Pictures are the same whose
content is: names, labels and splits of the two runs have nothing to do with each other.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from cbir_tf.config.search import TwoStep
from cbir_tf.errors import UserError
from cbir_tf.retrieval.class_router import Gate, predicted

if TYPE_CHECKING:
    from cbir_tf.retrieval.retriever import Retriever


class Scenes:
    """Another run that says of which class pictures are.

    Args:
        here: the run that is searched.
        other: the one that says, opened too.
        settings: of the search.

    Raises:
        UserError: the other run has no labelled training images in its store.
    """

    def __init__(self, here: Retriever, other: Retriever, settings: TwoStep) -> None:
        self.here, self.other = here, other
        self.settings = settings
        self._digest_of = here.store.digests()
        self.classifier = other.fit_classifier(settings)
        stored = other.store.digests().values()
        self._row_of = {digest: row for row, digest in enumerate(stored)}

    def gate(self) -> Gate:
        """The gate of the images searched.

        Raises:
            UserError: the other run has not extracted one of them.
        """
        digests = self._digest_of
        missing = [id_ for id_, digest in digests.items() if digest not in self._row_of]
        if missing:
            raise self._not_extracted(missing)
        # Each picture once, however often it is stored.
        rows, number = np.unique(
            [self._row_of[digest] for digest in digests.values()], return_inverse=True
        )
        some = self.other.embeddings.take(rows)
        class_of = predicted(self.classifier, some.vectors, some.ids)[number]
        names = tuple(self.other.class_names[label] for label in self.classifier.labels.tolist())
        return Gate(self.classifier, names, class_of, self.settings)

    def probabilities(self, query: str | Path | bytes | np.ndarray) -> np.ndarray:
        """(1, C) probabilities of the classes of a picture.

        Args:
            query: path or encoded bytes of an image, or uint8 (H, W, 3) RGB pixels.

        Raises:
            UserError: a vector, which is no picture, or an unreadable image.
        """
        if isinstance(query, np.ndarray) and query.ndim == 1:
            raise UserError(
                f"search.two_step.run: a vector has no picture that {self.other.run.folder} could "
                "classify; give the picture, or search without it"
            )
        return self.classifier.probabilities(self.other.encode(query)[np.newaxis])

    def of_stored(self, ids: np.ndarray) -> np.ndarray:
        """(Q, C) probabilities of the classes of images searched."""
        known = self.other.embeddings
        rows = np.array([self._row_of[self._digest_of[id_]] for id_ in ids.tolist()])
        return self.classifier.probabilities(known.vectors[rows], known.ids[rows])

    def _not_extracted(self, missing: list[str]) -> UserError:
        folder = self.other.run.folder
        paths = [self.here.record(id_).path for id_ in missing]
        where = "--split all"
        if None not in paths:
            where = f"--images {os.path.commonpath([path.parent for path in paths if path])}"
        return UserError(
            f"{folder}: has not extracted {missing[0]!r}, one of {len(missing)} such images that "
            f"{self.here.run.folder} searches; run extract.py --run {folder} {where}"
        )
