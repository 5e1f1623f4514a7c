"""The pictures of a run: what each verb draws, and from which values."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from cbir_tf.data.augment import augment
from cbir_tf.data.decode import ImageError, decode_image, decode_original
from cbir_tf.errors import UserError
from cbir_tf.plots.classes import class_counts
from cbir_tf.plots.curves import learning_rate_curve, loss_curves
from cbir_tf.plots.embedding_map import embedding_map_html, embedding_map_png
from cbir_tf.plots.grids import (
    NeighbourRow,
    augmentation_grid,
    query_grid,
    reconstruction_grid,
    sample_grid,
)
from cbir_tf.plots.pictures import thumbnail
from cbir_tf.plots.projection import possible_method, principal_components, project, spread
from cbir_tf.plots.variance import explained_variance, variance_curve
from cbir_tf.progress import logger, progress
from cbir_tf.remote import local
from cbir_tf.types import ImageSet, Run

if TYPE_CHECKING:
    from callbacks import ScheduledRate
    from cbir_tf.losses.objectives import Objective
    from cbir_tf.retriever import Retriever
    from cbir_tf.types import Embeddings, Neighbours

SAMPLES = 20
AUGMENTED_IMAGES = 4
AUGMENTED_VARIANTS = 6
GRID_SIDE = 224
THUMBNAIL_SIDE = 64
RECONSTRUCTIONS = 8
LOSSES = {"cross_entropy": "cross-entropy", "reconstruction": "mean squared error"}
MAPPED = 3000
"""Most images of an embedding map."""


def draw_classes(run: Run, images: ImageSet) -> None:
    """How many images each class has."""
    title = f"{run.config.name}: {len(images):,} images by class"
    class_counts(run.plots / "classes.png", images.labels, images.split, images.class_names, title)


def draw_samples(run: Run, training: ImageSet) -> None:
    """Some training images as the model sees them, and, with an embedder, augmented variants."""
    import tensorflow as tf

    data = run.config.data
    chosen = training.take(spread(training.labels, SAMPLES, run.config.seed))
    images = [decode_image(each, data.image_size, data.resize) for each in chosen.sources]
    names = [(*training.class_names, "")[label] for label in chosen.labels]
    sample_grid(run.plots / "samples.png", images, names, f"{run.config.name}: training images")
    if run.config.descriptors:
        return
    variants = [
        [
            augment(tf.constant(image), data.augmentation, tf.constant([row, column])).numpy()
            for column in range(AUGMENTED_VARIANTS)
        ]
        for row, image in enumerate(images[:AUGMENTED_IMAGES])
    ]
    augmentation_grid(run.plots / "augmentation.png", images[:AUGMENTED_IMAGES], variants)


def draw_curves(
    run: Run,
    history: list[dict[str, float]],
    schedule: ScheduledRate | None,
    steps_per_epoch: int,
) -> None:
    """Loss, validation figures and learning rate over the epochs."""
    columns = {name: [row[name] for row in history] for name in history[0]}
    loss = LOSSES.get(run.config.loss.name, "triplet loss")
    loss_curves(run.plots / "loss.png", columns, run.config.training.monitor, loss)
    steps = range(len(history) * steps_per_epoch)
    if schedule is None:
        rates = [run.config.optimizer.learning_rate] * len(steps)
    else:
        rates = schedule.plan(len(steps)).tolist()
    learning_rate_curve(run.plots / "learning_rate.png", steps, rates, steps_per_epoch)


def draw_reconstructions(run: Run, validation: ImageSet, objective: Objective) -> None:
    """Some validation images above what the auto-encoder makes of them."""
    from cbir_tf.losses.objectives import as_pixels, disturbed

    data = run.config.data
    chosen = validation.take(spread(validation.labels, RECONSTRUCTIONS, run.config.seed))
    pictures = [decode_image(each, data.image_size, data.resize) for each in chosen.sources]
    originals = np.stack(pictures)
    seen = np.asarray(disturbed(originals, objective.noise, run.config.seed))
    made = np.asarray(objective.twin.predict_on_batch(seen))
    errors = np.mean((made - np.asarray(as_pixels(originals))) ** 2, axis=(1, 2, 3))
    rows = {"original": list(originals)}
    if objective.noise:
        rows["with noise"] = list(seen)
    rows["reconstruction"] = list(np.rint(255 * made).astype(np.uint8))
    title = f"{run.config.name}: reconstructions and their mean squared errors"
    reconstruction_grid(run.plots / "reconstructions.png", rows, errors.tolist(), title)


def draw_map(retriever: Retriever, ids: np.ndarray) -> list[Path]:
    """The embedding map of some stored images, still and interactive, and a grid of queries.

    With `plots.projection: pca`, also what the principal components hold, and the first three. Of
    more than `MAPPED` images a sample is shown, the classes taking turns: the page holds a
    thumbnail of each, and laying them out takes more than proportionally long.
    """
    config, plots = retriever.run.config, retriever.run.plots
    positions = np.flatnonzero(np.isin(retriever.embeddings.ids, ids))
    count = f"{len(positions)} images"
    if len(positions) > MAPPED:
        chosen = spread(retriever.embeddings.labels[positions], MAPPED, config.seed)
        positions, count = np.sort(positions[chosen]), f"{MAPPED} of {count}"
        logger.info("the embedding map shows %s, the classes taking turns", count)
    shown = retriever.embeddings.take(positions)
    method = config.plots.projection
    points = project(shown.vectors, method, config.seed)
    title = f"{config.name}: {count}, {possible_method(shown.vectors, method)}"
    names = retriever.class_names
    blank = np.full((THUMBNAIL_SIDE, THUMBNAIL_SIDE, 3), 200, np.uint8)
    thumbnails = []
    for id_ in progress(shown.ids, description="thumbnails"):
        picture = _stored_picture(retriever, str(id_), THUMBNAIL_SIDE)
        thumbnails.append(thumbnail(blank if picture is None else picture, THUMBNAIL_SIDE))
    pictures = [
        embedding_map_png(plots / "embedding_map.png", points, shown.labels, names, title=title),
        embedding_map_html(
            plots / "embedding_map.html", points, shown.labels, names, shown.ids, thumbnails, title
        ),
    ]
    if method == "pca":
        pictures += _draw_components(retriever, shown)
    k = min(retriever.search_config.k, len(retriever.embeddings) - 1)
    if k:
        chosen = shown.ids[spread(shown.labels, config.plots.queries, config.seed)]
        try:
            found = [retriever.search(str(id_), k) for id_ in chosen]
        except UserError as error:  # what a second step needs may be extracted later
            logger.warning("no query grid yet: %s", error)
            return pictures
        rows = [neighbour_row(retriever, *each) for each in zip(chosen, found, strict=True)]
        pictures.append(query_grid(plots / "query_grid.png", rows))
    return pictures


def _draw_components(retriever: Retriever, shown: Embeddings) -> list[Path]:
    """The variance over the number of principal components, and the space of the first three."""
    config, plots = retriever.run.config, retriever.run.plots
    shares = explained_variance(shown.vectors)
    title = f"{config.name}: principal components of {len(shown)} images"
    own = [*np.diff(shares, prepend=0), 0, 0, 0]  # alike vectors have none
    names = [f"component {number + 1}: {own[number]:.0%} of the variance" for number in range(3)]
    points = principal_components(shown.vectors, 3, config.seed)
    return [
        variance_curve(plots / "variance.png", shares, title),
        embedding_map_png(
            plots / "components.png", points, shown.labels, retriever.class_names, title, names
        ),
    ]


def neighbour_row(retriever: Retriever, query: str, neighbours: Neighbours) -> NeighbourRow:
    """A query, a stored id or an image file, with its neighbours, ready to draw."""
    id_ = retriever.stored_id(query)
    label = retriever.label(id_) if id_ else None
    name = Path(query).name
    found = neighbours.ids[0][np.isfinite(neighbours.distances[0])]
    labels = [retriever.label(str(each)) for each in found]
    return NeighbourRow(
        _stored_picture(retriever, id_, GRID_SIDE)
        if id_
        else decode_original(local(query), GRID_SIDE),
        f"{label}\n{name}" if label else name,
        [_stored_picture(retriever, str(each), GRID_SIDE) for each in found],
        [
            f"{label_ or Path(str(each)).name}\n{distance:.3f}"
            for each, label_, distance in zip(found, labels, neighbours.distances[0], strict=False)
        ],
        [None if label is None or each is None else each == label for each in labels],
    )


def _stored_picture(retriever: Retriever, id_: str, side: int) -> np.ndarray | None:
    """The picture of a stored image; None where its file has gone since it was extracted."""
    try:
        return decode_original(retriever.source(id_), side)
    except ImageError:
        return None
