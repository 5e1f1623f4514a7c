"""The pictures of what is searched: the embedding map, and queries with their neighbours."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from cbir_tf.data.decode import decode_original
from cbir_tf.errors import UserError
from cbir_tf.plots.embedding_map import embedding_map_html, embedding_map_png
from cbir_tf.plots.grids import NeighbourRow, query_grid
from cbir_tf.plots.layout import possible_method, principal_components, project, spread
from cbir_tf.plots.thumbnails import thumbnail
from cbir_tf.plots.variance import explained_variance, variance_curve
from cbir_tf.progress import logger, progress
from cbir_tf.retrieval.absence import is_missing
from cbir_tf.retrieval.retriever import Retriever
from cbir_tf.storage.files import read_json, sha256, write_text
from cbir_tf.storage.remote import local
from cbir_tf.types import Embeddings, Results

DRAWN = "drawn.json"
"""In the index folder: what the pictures were drawn of."""
GRID_SIDE = 224
THUMBNAIL_SIDE = 64
MAPPED = 3000
"""Most images of an embedding map."""


def draw_map(retriever: Retriever, ids: np.ndarray) -> list[Path]:
    """The embedding map of some stored images, still and interactive, and a grid of queries.

    Pictures that are there and would be the same are not drawn again.

    With `plots.layout: pca`, also what the principal components hold, and the first three. Of
    more than `MAPPED` images a sample is shown, the classes taking turns: the page holds a
    thumbnail of each, and laying them out takes more than proportionally long.

    Returns:
        The pictures, whether drawn now or before.
    """
    note, state = retriever.run.index / DRAWN, _state(retriever, ids)
    try:
        before = read_json(note)
    except UserError:  # none yet, or a damaged one
        before = {}
    kept = [retriever.run.folder / each for each in before.get("pictures", ())]
    if before.get("state") == state and kept and all(each.is_file() for each in kept):
        logger.info("nothing has changed: the embedding map and the query grid stay as they are")
        return kept
    pictures, complete = _draw(retriever, ids)
    names = [each.relative_to(retriever.run.folder).as_posix() for each in pictures]
    if complete:
        write_text(note, json.dumps({"state": state, "pictures": names}))
    return pictures


def _state(retriever: Retriever, ids: np.ndarray) -> str:
    """Changes whenever the pictures would."""
    config = retriever.run.config
    settings = [config.name, config.seed, MAPPED, config.plots.model_dump(mode="json")]
    searched = retriever.search_config.model_dump(mode="json")
    about = json.dumps([settings, searched, retriever.store.version, np.sort(ids).tolist()])
    return sha256(about.encode())


def _draw(retriever: Retriever, ids: np.ndarray) -> tuple[list[Path], bool]:
    """The pictures, and whether they are all."""
    config, plots = retriever.run.config, retriever.run.plots
    positions = np.flatnonzero(np.isin(retriever.embeddings.ids, ids))
    count = f"{len(positions)} images"
    if len(positions) > MAPPED:
        chosen = spread(retriever.embeddings.labels[positions], MAPPED, config.seed)
        positions, count = np.sort(positions[chosen]), f"{MAPPED} of {count}"
        logger.info("the embedding map shows %s, the classes taking turns", count)
    shown = retriever.embeddings.take(positions)
    method = possible_method(shown.vectors, config.plots.layout)
    logger.info("laying out the embedding map of %s by %s; --no-map leaves it out", count, method)
    points = project(shown.vectors, config.plots.layout, config.seed)
    title = f"{config.name}: {count}, {method}"
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
    if config.plots.layout == "pca":
        pictures += _draw_components(retriever, shown)
    queries = shown.ids[spread(shown.labels, config.plots.queries, config.seed)].tolist()
    if len(retriever.gallery) > 1:
        try:
            found = retriever.search(queries)
        except UserError as error:  # what a two-step search needs may be extracted later
            logger.warning("no query grid yet: %s", error)
            return pictures, False
        rows = [neighbour_row(retriever, id_, found, row) for row, id_ in enumerate(queries)]
        pictures.append(query_grid(plots / "query_grid.png", rows))
    return pictures, True


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


def neighbour_row(retriever: Retriever, query: str, results: Results, row: int = 0) -> NeighbourRow:
    """A query with its neighbours, ready to draw.

    Args:
        retriever: of the run.
        query: id of a stored image, or an image file.
        results: of the search.
        row: of the query in the results.
    """
    id_ = retriever.stored_id(query)
    label = retriever.label(id_) if id_ else None
    name = Path(query).name
    hits = results.hits(row)
    return NeighbourRow(
        _stored_picture(retriever, id_, GRID_SIDE)
        if id_
        else decode_original(local(query), GRID_SIDE),
        f"{label}\n{name}" if label else name,
        [_stored_picture(retriever, hit.id, GRID_SIDE) for hit in hits],
        [
            f"{hit.label or Path(hit.id).name}\n{hit.distance:.3f}"
            + (", file missing" if is_missing(hit.path) else "")
            for hit in hits
        ],
        [None if label is None or hit.label is None else hit.label == label for hit in hits],
    )


def _stored_picture(retriever: Retriever, id_: str, side: int) -> np.ndarray | None:
    """The picture of a stored image; None where its file has gone since it was extracted."""
    try:
        return decode_original(retriever.source(id_), side)
    except (UserError, OSError, KeyError):  # also where all pictures of the run have gone
        return None
