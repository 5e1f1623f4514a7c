"""A look for mistakes in a run's labels and images: what `cbir inspect` does."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from cbir_tf.errors import UserError
from cbir_tf.evaluation.label_check import contradicted_labels, outliers
from cbir_tf.plots.inspection_page import Finding, inspection_page
from cbir_tf.retrieval.query_engine import QueryEngine
from cbir_tf.retrieval.retriever import Retriever
from cbir_tf.types import UNLABELLED, Results

SHOWN_NEIGHBOURS = 5


@dataclass(frozen=True)
class WrongLabel:
    """An image that its neighbours put into another class; `share` of them, 0..1."""

    id: str
    label: str
    suggested: str
    share: float


@dataclass(frozen=True)
class Inspected:
    """What was found among the stored images.

    Attributes:
        images: how many there are.
        unlabelled: how many of them have no label.
        wrong_labels: likely ones, the clearest first.
        two_labels: groups of images of the same content with different labels: ids by label.
        outliers: ids, the farthest first.
        small_classes: classes with too few images for the check: number of images by name.
        neighbours: of the images named by `wrong_labels` and `outliers`, by id.
    """

    images: int
    unlabelled: int
    wrong_labels: tuple[WrongLabel, ...]
    two_labels: tuple[dict[str, list[str]], ...]
    outliers: tuple[str, ...]
    small_classes: dict[str, int]
    neighbours: dict[str, Results]

    def as_json(self) -> dict[str, Any]:
        """The findings without the neighbours."""
        names = [name for name in Inspected.__dataclass_fields__ if name != "neighbours"]
        found = {name: getattr(self, name) for name in names}
        return found | {"wrong_labels": [asdict(each) for each in self.wrong_labels]}


def inspect_labels(retriever: Retriever, k: int = 10, share: float = 0.8) -> Inspected:
    """Compare every stored image with its nearest neighbours.

    Args:
        retriever: of the run.
        k: neighbours that vote; all others where there are fewer.
        share: of the neighbours that has to agree on another label to call one wrong.

    Raises:
        UserError: there is only one image.
    """
    gallery, names = retriever.gallery, retriever.class_names
    ids, labels = gallery.embeddings.ids, gallery.embeddings.labels
    if len(ids) < 2:
        raise UserError(f"{retriever.run.features}: holds one image; extract more to compare")
    k = min(k, len(ids) - 1)
    plain = gallery.settings.changed("none", "none")
    found = QueryEngine(gallery, plain).search(
        gallery.stored_queries(ids, two_step=plain.two_step), k
    )
    wrong = contradicted_labels(labels, found.labels, share)
    far = outliers(found.distances)
    sizes = np.bincount(labels[labels != UNLABELLED], minlength=len(names))
    described = retriever.described(found)
    return Inspected(
        images=len(ids),
        unlabelled=int((labels == UNLABELLED).sum()),
        wrong_labels=tuple(
            WrongLabel(str(ids[each.row]), names[each.label], names[each.suggested], each.share)
            for each in wrong
        ),
        two_labels=_two_labels(retriever),
        outliers=tuple(ids[far].tolist()),
        small_classes={
            name: size for name, size in zip(names, sizes.tolist(), strict=True) if 0 < size <= k
        },
        neighbours={
            str(ids[row]): described.of_query(row) for row in [*(each.row for each in wrong), *far]
        },
    )


def draw_inspection(retriever: Retriever, found: Inspected, path: Path) -> Path:
    """Write a page with the pictures of what was found.

    Raises:
        UserError: the path cannot be written to.
    """
    sections = {
        "Likely wrong labels": [
            _finding(
                retriever,
                found,
                each.id,
                f"{each.label}: {each.share:.0%} of its neighbours are {each.suggested}",
            )
            for each in found.wrong_labels
        ],
        "One picture under several labels": [
            Finding(
                id_,
                f"{label}; the same file also as " + ", ".join(sorted(set(group) - {label})),
                retriever.source(id_),
            )
            for group in found.two_labels
            for label, ids in group.items()
            for id_ in ids
        ],
        "Outliers": [
            _finding(retriever, found, id_, retriever.label(id_) or "no label")
            for id_ in found.outliers
        ],
    }
    return inspection_page(path, f"{retriever.run.config.name}: {found.images} images", sections)


def _finding(retriever: Retriever, found: Inspected, id_: str, text: str) -> Finding:
    hits = found.neighbours[id_].hits()[:SHOWN_NEIGHBOURS]
    around = tuple(
        (f"{hit.label or '-'} {hit.distance:.3f}", retriever.source(hit.id)) for hit in hits
    )
    return Finding(id_, text, retriever.source(id_), around)


def _two_labels(retriever: Retriever) -> tuple[dict[str, list[str]], ...]:
    """Groups of files of the same bytes that have different labels."""
    labels = dict(
        zip(retriever.embeddings.ids.tolist(), retriever.embeddings.labels.tolist(), strict=True)
    )
    same: dict[str, dict[str, list[str]]] = defaultdict(lambda: defaultdict(list))
    for id_, digest in sorted(retriever.store.digests().items()):
        label = labels.get(id_, UNLABELLED)
        if label != UNLABELLED:
            same[digest][retriever.class_names[label]].append(id_)
    return tuple(dict(group) for group in same.values() if len(group) > 1)
