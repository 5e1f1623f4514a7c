"""The class router's classes from another run: its model and its classes, of the same pictures.

The other run may be trained on anything, for instance on scenes. A query is encoded by its model
and classified by a classifier of its training images; an image of the gallery is of the class that
the same classifier predicts from the vector in the other run's store. Two pictures are the same if
their content is: names, labels and splits of the two runs have nothing to do with each other.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np

from cbir_tf.config.search import TwoStep
from cbir_tf.errors import UserError
from cbir_tf.retrieval.class_router import ClassRouter, predicted
from cbir_tf.retrieval.classifiers import Classifier
from cbir_tf.types import Embeddings


@dataclass(frozen=True, eq=False)
class ExternalClassifier:
    """Another run that gives queries and gallery images their classes.

    Attributes:
        name: of the other run, for messages.
        embeddings: all that it has stored, in order of id.
        digests: of the other run's pictures, in order of id.
        class_names: of the other run, by label.
        fit: makes a classifier of the other run's training images.
        digest_of: digest of the picture of each image of the gallery, by id.
        path_of: its file; None for an image that is not a file.
    """

    name: str
    embeddings: Embeddings
    digests: tuple[str, ...]
    class_names: tuple[str, ...]
    fit: Callable[[TwoStep], Classifier]
    digest_of: Mapping[str, str]
    path_of: Callable[[str], Path | None]
    classifiers: dict[TwoStep, Classifier] = field(default_factory=dict)

    def classifier(self, two_step: TwoStep) -> Classifier:
        """The classifier of the other run, fitted the first time.

        Raises:
            UserError: the other run has stored no labelled training images.
        """
        if two_step not in self.classifiers:
            self.classifiers[two_step] = self.fit(two_step)
        return self.classifiers[two_step]

    def router(self, ids: np.ndarray, two_step: TwoStep) -> ClassRouter:
        """The class router of a gallery.

        Args:
            ids: of its images, ascending.
            two_step: settings.

        Raises:
            UserError: the other run has not extracted one of the images.
        """
        classifier = self.classifier(two_step)
        # Each picture once, however often it is stored.
        rows, number = np.unique(self._rows(ids), return_inverse=True)
        some = self.embeddings.take(rows)
        class_of = predicted(classifier, some.vectors, some.ids)[number]
        names = tuple(self.class_names[label] for label in classifier.labels.tolist())
        return ClassRouter(classifier, names, class_of, two_step)

    def of_stored(self, ids: np.ndarray, two_step: TwoStep) -> np.ndarray:
        """(Q, C) probabilities of the classes of images of the gallery.

        Raises:
            UserError: as `router`.
        """
        rows = self._rows(ids)
        known = self.embeddings
        return self.classifier(two_step).probabilities(known.vectors[rows], known.ids[rows])

    def _rows(self, ids: np.ndarray) -> np.ndarray:
        missing = [id_ for id_ in ids.tolist() if self.digest_of[id_] not in self._row_of]
        if missing:
            raise self._not_extracted(missing)
        return np.array([self._row_of[self.digest_of[id_]] for id_ in ids.tolist()], dtype=np.int64)

    @cached_property
    def _row_of(self) -> dict[str, int]:
        return {digest: row for row, digest in enumerate(self.digests)}

    def _not_extracted(self, missing: list[str]) -> UserError:
        paths = [self.path_of(id_) for id_ in missing]
        where = "--split all"
        if None not in paths:
            where = f"--images {os.path.commonpath([path.parent for path in paths if path])}"
        return UserError(
            f"{self.name}: {missing[0]!r} and {len(missing) - 1} other images of the gallery are "
            f"not extracted there; run cbir extract --run {self.name} {where}"
        )
