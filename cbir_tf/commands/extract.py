"""extract: embed images into the run's feature store, fit the index, draw the embedding map."""

from __future__ import annotations

import argparse
import json
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from cbir_tf.commands.startup import import_tensorflow
from cbir_tf.errors import UserError
from cbir_tf.types import SPLITS, Run

if TYPE_CHECKING:
    from cbir_tf.retriever import Retriever
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
    import_tensorflow()
    from cbir_tf.commands.pictures import draw_map

    images = _chosen_images(run, arguments)
    retriever, unreadable = extract(run, images)
    pictures = draw_map(retriever, images.ids)
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
    from cbir_tf.data.inspection import read_image_table
    from cbir_tf.data.sources import load_images

    images = read_image_table(run.images, load_images(run.config.data, run.config.seed)).images
    chosen = images.take(np.isin(images.split, SPLITS) if split == "all" else images.split == split)
    if not len(chosen):
        raise UserError(f"{run.folder}: has no {split} images; choose another --split")
    return chosen


def extract(run: Run, images: ImageSet) -> tuple[Retriever, list[str]]:
    """Embed into the store and save the fitted index.

    Returns:
        The run ready to be searched, and the ids of the images that could not be read.

    Raises:
        UserError: the store is of another model, or none of the images could be read.
    """
    from cbir_tf.features.encode import encode
    from cbir_tf.features.store import FeatureStore
    from cbir_tf.files import read_json, sha256
    from cbir_tf.models import load_embedder
    from cbir_tf.retriever import Retriever

    model = load_embedder(run.model)
    digest = sha256(run.model)
    names = read_json(run.training)["class_names"]
    with FeatureStore.create(run.features, digest, names) as store:
        unreadable = encode(model, images, run.config.data, store)
        if len(unreadable) == len(images):
            raise UserError(
                f"none of the {len(images)} images could be read, the first is {unreadable[0]!r}; "
                "is it the right folder?"
            )
    retriever = Retriever(run)
    retriever.index.save(run.index)
    return retriever, unreadable


def _chosen_images(run: Run, arguments: argparse.Namespace) -> ImageSet:
    from cbir_tf.data.sources import images_in_folder

    if arguments.images is None:
        return split_images(run, arguments.split)
    images = images_in_folder(arguments.images)
    # Two folders may hold files of one name, so outside images go by their whole path.
    folder = arguments.images.resolve()
    ids = [(folder / id_).as_posix() for id_ in images.ids]
    return replace(images, ids=np.array(ids, dtype=np.str_))
