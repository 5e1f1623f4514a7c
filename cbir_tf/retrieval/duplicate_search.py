"""A search for duplicates in a folder or in a run's feature store: what `cbir duplicates` does."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from cbir_tf.data.duplicate_groups import duplicate_groups
from cbir_tf.data.duplicate_images import DuplicateImage, without_links
from cbir_tf.data.inspection import Inspection, inspect_images
from cbir_tf.data.sources import all_images, images_in_folder
from cbir_tf.errors import UserError
from cbir_tf.features.store import FeatureStore
from cbir_tf.retrieval.opening import stored_embeddings
from cbir_tf.run import Run
from cbir_tf.storage.remote import fetch_missing
from cbir_tf.types import Embeddings, ImageSet

Groups = list[list[DuplicateImage]]


@dataclass(frozen=True)
class Duplicates:
    """The result of a search for duplicates.

    Attributes:
        inspection: the undamaged images, and the damaged ones by id.
        groups: of two images or more, the largest group first; in each the one to keep first.
    """

    inspection: Inspection
    groups: Groups


def duplicates_in_folder(folder: Path) -> Duplicates:
    """The duplicates among the images below a folder, or those its manifest.csv lists.

    Args:
        folder: a folder, or a manifest.

    Raises:
        UserError: the folder was not found, or has no image that can be decoded.
    """
    images = images_in_folder(folder)
    inspection = inspect_images(without_links(images.ids.tolist(), images.sources))
    return Duplicates(inspection, find_groups(inspection))


def duplicates_in_run(run: Run, distance: float | None = None) -> Duplicates:
    """The duplicates among the images extracted into a run.

    Args:
        run: with a feature store.
        distance: also group images whose embeddings are at most so far apart, as searches have it;
            None: embeddings are not compared.

    Raises:
        UserError: the feature store is missing, empty or damaged, or no image can be decoded.
    """
    images, embeddings = _stored_images(run)
    inspection = inspect_images(images)
    metric = run.config.search.metric
    return Duplicates(inspection, find_groups(inspection, embeddings, metric, distance))


def find_groups(
    inspection: Inspection,
    embeddings: Embeddings | None = None,
    metric: str = "cosine",
    distance: float | None = None,
) -> Groups:
    """The groups of duplicates, in the order of `duplicate_groups`.

    Args:
        inspection: of the images.
        embeddings: of these images, and perhaps of others.
        metric: of the distance between embeddings.
        distance: group images whose embeddings are at most so far apart, too; None: embeddings
            are not compared.
    """
    if embeddings is None or distance is None:
        return [
            [DuplicateImage.of(inspection, each) for each in group]
            for group in duplicate_groups(inspection)
        ]
    from cbir_tf.search.distances import between, find_metric, pairs_within
    from cbir_tf.search.index import positions_of

    arithmetic = find_metric(metric)
    vectors = embeddings.vectors[positions_of(inspection.images.ids, embeddings.ids)]
    groups = []
    for group in duplicate_groups(inspection, pairs_within(arithmetic, vectors, distance)):
        prepared = arithmetic.prepare(vectors[[each.position for each in group]])
        distances = between(arithmetic, prepared[:1], prepared).tolist()
        groups.append(
            [
                DuplicateImage.of(inspection, copy, from_first)
                for copy, from_first in zip(group, distances, strict=True)
            ]
        )
    return groups


def _stored_images(run: Run) -> tuple[ImageSet, Embeddings]:
    """The images in a run's feature store, and their embeddings."""
    with FeatureStore.open(run.features) as store:
        embeddings, _ = stored_embeddings(store, run, run.config.search)
        searched = set(embeddings.ids.tolist())
        records = [each for each in store.records() if each.id in searched]
        if not records:
            raise UserError(f"{run.features}: is empty; run cbir extract --run {run.folder}")
    encoded: dict[str, Path | bytes] = {}
    if any(each.path is None for each in records):
        images = all_images(run.config.data)
        encoded = dict(zip(images.ids.tolist(), images.sources, strict=True))
    fetch_missing(each.path for each in records if each.path)
    sources = [each.path or encoded.get(each.id, b"") for each in records]
    return without_links([each.id for each in records], sources), embeddings
