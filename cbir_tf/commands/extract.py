"""extract: embed images into the run's feature store, fit the index, draw the embedding map."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING

from cbir_tf.errors import UserError
from cbir_tf.types import SPLITS, Run

if TYPE_CHECKING:
    from cbir_tf.types import ImageSet


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The verb's arguments."""
    parser.add_argument("--run", type=Path, required=True, help="folder of a trained run")
    which = parser.add_mutually_exclusive_group()
    which.add_argument(
        "--split", choices=[*SPLITS, "all"], default="validation", help="default: validation"
    )
    which.add_argument("--images", type=Path, metavar="DIR", help="a folder of images instead")
    parser.add_argument("--json", action="store_true", help="one JSON document on standard output")


def main(arguments: argparse.Namespace) -> None:
    """Extract, fit the index, draw; prints what was made and where."""
    run = trained_run(arguments.run)
    images = _chosen_images(run, arguments)
    unreadable = extract(run, images)
    pictures = _draw(run, images)
    result = {
        "features": str(run.features),
        "images": len(images) - len(unreadable),
        "unreadable": unreadable,
        "pictures": [str(each) for each in pictures],
    }
    if arguments.json:
        print(json.dumps(result, ensure_ascii=False))
        return
    print(f"{result['images']} images in {run.features}")
    for each in pictures:
        print(each)


def trained_run(folder: Path) -> Run:
    """Open a run whose training has finished.

    Raises:
        UserError: no run there, or not trained to the end.
    """
    run = Run.open(folder)
    if not run.trained:
        raise UserError(f"{folder}: not trained to the end; finish it with train.py ... --resume")
    return run


def split_images(run: Run, split: str) -> ImageSet:
    """The undamaged images of one split of a run, or of all three."""
    from cbir_tf.data.sources import load_images
    from cbir_tf.data.inspection import read_image_table

    images = load_images(run.config.data, run.config.seed)
    table = read_image_table(run.images)
    chosen = images.take(
        [table.get(str(each), "") in ([split], SPLITS)[split == "all"] for each in images.ids]
    )
    if not len(chosen):
        raise UserError(f"{run.folder}: no {split} images in this run; choose another --split")
    return chosen


def extract(run: Run, images: ImageSet) -> list[str]:
    """Embed into the store and save the fitted index; returns the ids that could not be read."""
    from cbir_tf.features.encode import encode
    from cbir_tf.features.store import FeatureStore
    from cbir_tf.files import sha256
    from cbir_tf.models import load_embedder
    from cbir_tf.retriever import Retriever

    digest = sha256(run.model)
    with FeatureStore.create(run.features, digest, images.class_names) as store:
        unreadable = encode(load_embedder(run.model), images, run.config.data, store)
        if not store.records():
            raise UserError(f"{run.features}: none of the {len(images)} images could be read")
    Retriever(run).index.save(run.index)
    return unreadable


def _chosen_images(run: Run, arguments: argparse.Namespace) -> ImageSet:
    from dataclasses import replace

    from cbir_tf.data.sources import images_in_folder

    if arguments.images is None:
        return split_images(run, arguments.split)
    images = images_in_folder(arguments.images)
    # Two folders may hold files of one name: outside images go by their whole path.
    folder = arguments.images.resolve()
    return replace(
        images,
        ids=[(folder / id_).as_posix() for id_ in images.ids],
        split=[""] * len(images),
    )


def _draw(run: Run, images: ImageSet) -> list[Path]:
    """The embedding map, still and interactive, and some queries with their neighbours."""
    from cbir_tf.data.decode import decode_original
    from cbir_tf.plots.embedding_map import (
        embedding_map_html,
        embedding_map_png,
        project,
        thumbnail,
    )
    from cbir_tf.progress import progress
    from cbir_tf.retriever import Retriever

    retriever = Retriever(run)
    shown = retriever.embeddings.take(np.isin(retriever.embeddings.ids, images.ids))
    if len(shown) < 2:
        return []
    method = run.config.plots.projection
    points = project(shown.vectors, method, run.config.seed)
    title = f"{run.config.name}: {len(shown)} images, {method}"
    names = retriever.class_names
    thumbnails = [
        thumbnail(decode_original(retriever.source(str(id_)), longest=128))
        for id_ in progress(shown.ids, description="thumbnails")
    ]
    still, page = run.plots / "embedding_map.png", run.plots / "embedding_map.html"
    embedding_map_png(still, points, shown.labels, names, title=title)
    embedding_map_html(page, points, shown.labels, names, shown.ids, thumbnails, title)
    return [still, page, _query_grid(run, retriever, shown)]


def _query_grid(run: Run, retriever: Retriever, shown: Embeddings) -> Path:
    """Queries spread over the classes, each with its neighbours."""
    rng = np.random.default_rng(run.config.seed)
    order = rng.permutation(len(shown))
    turn = np.zeros(len(shown), dtype=int)
    for label in np.unique(shown.labels):
        members = order[shown.labels[order] == label]
        turn[members] = np.arange(len(members))
    queries = sorted(order, key=lambda each: turn[each])[: run.config.plots.queries]
    k = min(retriever.search_config.k, len(retriever.embeddings) - 1)
    rows = [neighbour_row(retriever, str(shown.ids[each]), k) for each in queries]
    path = run.plots / "query_grid.png"
    query_grid(path, rows)
    return path
