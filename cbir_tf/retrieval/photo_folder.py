"""Search in any folder of pictures without a training, by a pretrained embedder.

What is extracted is kept in a run of its own, in a folder of the user's cache or wherever it is
wanted; nothing is written into the folder of pictures. Later searches embed only what is new.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from hashlib import sha256
from pathlib import Path

from filelock import FileLock

from cbir_tf.config import Config
from cbir_tf.config.data import Data
from cbir_tf.config.fixed import fixed_values
from cbir_tf.config.model import Model
from cbir_tf.errors import UserError
from cbir_tf.progress import logger
from cbir_tf.releases.fetch import fetch
from cbir_tf.releases.registry import PREFIX, Reference
from cbir_tf.retrieval.extraction import Extraction, extract_or_keep
from cbir_tf.retrieval.retriever import Retriever
from cbir_tf.run import Run
from cbir_tf.startup import import_tensorflow
from cbir_tf.storage.addresses import path_of
from cbir_tf.storage.files import cache_folder, replacing, write_text
from cbir_tf.storage.files import sha256 as file_digest

PRETRAINED = "efficientnet_lite0"
"""The backbone of searches without a run; its weights come with the extra `pretrained`."""


def run_of_folder(
    photos: Path, model: str = PRETRAINED, store: Path | None = None
) -> tuple[Run, Extraction]:
    """The run that searches a folder of pictures: made if necessary, and brought up to date.

    Args:
        photos: a folder, searched with its sub-folders, or a manifest.
        model: a backbone, with the ImageNet weights that are published for it; the folder of a run,
            whose embedder is used; or release:NAME@VERSION.
        store: folder of the run; None: one for this folder and model in the cache of the user.

    Returns:
        The run, and what was extracted now.

    Raises:
        UserError: no such folder, no images in it, an unknown model, or a store of another model.
    """
    if not photos.exists():
        raise UserError(f"{photos}: not found; give a folder of pictures")
    embedder = _embedder(model)
    folder = store or _cached(photos, embedder.name)
    folder.mkdir(parents=True, exist_ok=True)
    with FileLock(folder / "making.lock"):
        if not (folder / "config.yaml").is_file() or not Run.open(folder).trained:
            embedder.write(folder)
        run = Run.open(folder)
        if run.config.name != embedder.name:
            raise UserError(
                f"{folder}: searches with {run.config.name}, not with {embedder.name}; choose "
                "another --store"
            )
        return run, extract_or_keep(run, folder=photos, draw=False)


def open_folder(
    photos: str | Path, model: str = PRETRAINED, store: str | Path | None = None
) -> Retriever:
    """A folder of pictures opened for searching, without a training.

    Args:
        photos: a folder, searched with its sub-folders, or a manifest.
        model: as for `run_of_folder`.
        store: where the vectors are kept; None: in the cache of the user.

    Raises:
        UserError: as `run_of_folder`.

    Example:
        >>> open_folder("photos").search("query.jpg", k=5).hits()[0].path  # doctest: +SKIP
        PosixPath('/home/me/photos/rose/7.jpg')
    """
    run, _ = run_of_folder(path_of(photos), model, None if store is None else path_of(store))
    return Retriever(run)


def _cached(photos: Path, name: str) -> Path:
    """The same folder whenever the same pictures are searched with the same model."""
    place = str(photos.expanduser().resolve())
    key = sha256(os.fsencode(f"{name}\0{place}")).hexdigest()[:12]
    return cache_folder() / "folders" / key


@dataclass(frozen=True)
class _Embedder:
    """A model by the name of the run that it is kept in, and how to put it there."""

    name: str
    write: Callable[[Path], None]


def _embedder(model: str) -> _Embedder:
    own = Path(model).expanduser()
    if model.startswith(PREFIX):
        own = fetch(Reference.of(model))
    elif not (own / "config.yaml").is_file():
        return _Embedder(model, partial(_build, model))
    run = Run.open(own)
    config, file = run.config, run.model
    if not file.is_file():
        raise UserError(f"{own}: not trained to the end; choose another --model")
    run.check_unedited()
    # The digest tells apart what the run was before and after another training.
    name = f"{config.name}-{file_digest(file)[:8]}"
    return _Embedder(name, partial(_copy, file, config, name))


def _build(backbone: str, folder: Path) -> None:
    """Write a backbone with its published weights, average pooled."""
    logger.info("preparing %s", backbone)
    import_tensorflow()
    from cbir_tf.models import build_embedder
    from cbir_tf.models.backbones import backbone_named

    side = backbone_named(backbone).image_size
    config = Config(
        name=backbone,
        data=Data(source="none", image_size=(side, side)),
        model=Model(backbone=backbone, weights="imagenet", embedding_size=None),
    )
    embedder = build_embedder(config.model, config.seed, config.data.image_size)
    with _writing(folder, config) as file:
        embedder.save(file)


def _copy(model: Path, config: Config, name: str, folder: Path) -> None:
    """Write the embedder of a run or release, and how it reads and compares pictures."""
    data = config.data.model_copy(update={"source": "none", "path": None, "dataset": None})
    with _writing(folder, config.model_copy(update={"name": name, "data": data})) as file:
        shutil.copyfile(model, file)


@contextmanager
def _writing(folder: Path, config: Config) -> Iterator[Path]:
    """A run without images of its own; its model, to be written to the path, completes it."""
    run = Run(folder, config)
    write_text(run.config_file, config.dump())
    report = {"class_names": [], "fixed_keys": fixed_values(config)}
    write_text(run.training, json.dumps(report, ensure_ascii=False))
    with replacing(run.model) as temporary:
        yield temporary
