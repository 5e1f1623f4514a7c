"""Images from TensorFlow Datasets, read without decoding them."""

from __future__ import annotations

import contextlib
import difflib
import logging
import sys
from pathlib import Path
from typing import Any

import numpy as np

from cbir_tf.config.data import Data
from cbir_tf.data.entries import SPLIT_NAMES
from cbir_tf.data.text import nfc
from cbir_tf.errors import UserError
from cbir_tf.storage.remote import local
from cbir_tf.types import ImageSet

log = logging.getLogger(__name__)

RETRIES = 4
"""Number of retries of a failed download, all within 3 seconds."""


def tensorflow_dataset(data: Data) -> ImageSet:
    """An image classification data set of TensorFlow Datasets, by its name, for example tf_flowers.

    Sources are the stored encoded images; ids are `<split>/<number>` in stored order. Splits named
    train, validation (val, valid) or test are kept; images of other splits have no split.

    Args:
        data: `dataset` may name a configuration and version (`name/config:1.0.0`); `path` is the
            folder of all data sets, or of this prepared one; default: the folder of TFDS.

    Raises:
        UserError: the data set does not exist, cannot be downloaded, or has no image with a class.
    """
    assert data.dataset is not None  # checked by the configuration
    path = local(data.path).expanduser() if data.path else None
    builder = _builder(data.dataset, path)
    if builder.info.features is not None:  # known before anything is downloaded
        _keys(data.dataset, builder.info)
    _prepare(data.dataset, builder)
    image_key, label_key = _keys(data.dataset, builder.info)
    sources: list[bytes] = []
    labels: list[int] = []
    ids: list[str] = []
    split: list[str] = []
    for name in builder.info.splits:
        records = _records(builder, name, image_key)
        for number, record in enumerate(records):
            ids.append(f"{name}/{number:06d}")
            sources.append(record[image_key])
            labels.append(int(record[label_key]))
            split.append(SPLIT_NAMES.get(name, ""))
    return ImageSet(
        ids=np.array(ids, dtype=np.str_),
        sources=tuple(sources),
        labels=np.array(labels, dtype=np.int64),
        split=np.array(split, dtype=np.str_),
        class_names=tuple(map(nfc, builder.info.features[label_key].names)),
    )


def _prepare(name: str, builder: Any) -> None:
    """Download the data set, unless its files are there."""
    from tensorflow_datasets.core.download import downloader

    if builder.is_prepared():
        return
    log.info("%s: downloading to %s", name, builder.data_dir)
    # Each wait is twice as long as the previous one: the ten retries of TFDS would take minutes.
    downloader.MAX_RETRIES = RETRIES
    logging.getLogger("urllib3").setLevel(logging.ERROR)
    try:
        # TFDS prints its target folder; standard output is for results.
        with contextlib.redirect_stdout(sys.stderr):
            builder.download_and_prepare()
    except Exception as error:  # servers and the data set's script raise many kinds
        raise UserError(
            f"data.dataset: {name} is not in {builder.data_dir} and cannot be downloaded: "
            f"{_one_line(error)}; set data.path to the folder that contains it"
        ) from error


def _builder(name: str, path: Path | None) -> Any:
    import tensorflow_datasets as tfds  # takes seconds

    base = name.partition(":")[0].partition("/")[0]
    if path and (path / "dataset_info.json").is_file():
        builder = tfds.builder_from_directory(path)
        if builder.name != base:
            raise UserError(
                f"data.dataset: {path} contains {builder.name!r}, not {base!r}; correct data.path "
                "or data.dataset"
            )
        return builder
    try:
        return tfds.builder(name, data_dir=path)
    except tfds.core.DatasetNotFoundError:
        local = {each.name: each for each in path.iterdir()} if path and path.is_dir() else {}
        if base in local:
            raise UserError(
                f"data.dataset: {local[base]} does not contain {name!r}; check the version"
            ) from None
        known = [*local, *tfds.list_builders(with_community_datasets=False)]
        close = difflib.get_close_matches(base.lower(), known, n=1, cutoff=0.7)
        catalog = "see https://www.tensorflow.org/datasets/catalog for the names"
        hint = f"did you mean {close[0]!r}?" if close else catalog
        raise UserError(f"data.dataset: TensorFlow Datasets has no {name!r}; {hint}") from None
    except (ValueError, AssertionError, ImportError) as error:
        raise UserError(f"data.dataset: {name!r}: {_one_line(error)}") from None


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:200]


def _keys(name: str, info: Any) -> tuple[str, str]:
    """The names of the image and of the class among the features."""
    import tensorflow_datasets as tfds  # takes seconds

    features = dict(getattr(info.features, "items", dict)())
    for image_key, label_key in (info.supervised_keys or ("image", "label"), ("image", "label")):
        image, label = features.get(image_key), features.get(label_key)
        if (
            isinstance(image, tfds.features.Image)
            and isinstance(label, tfds.features.ClassLabel)
            and image.np_dtype == np.uint8
        ):
            return image_key, label_key
    raise UserError(
        f"data.dataset: {name} is not for image classification: it has no 8-bit image with a "
        f"class, but {', '.join(features) or 'other features'}; choose another data set"
    )


def _records(builder: Any, split: str, image_key: str) -> Any:
    import tensorflow_datasets as tfds  # takes seconds

    dataset = builder.as_dataset(
        split=split,
        shuffle_files=False,
        decoders={image_key: tfds.decode.SkipDecoding()},
        # One file after the other, to number the images in stored order.
        read_config=tfds.ReadConfig(interleave_cycle_length=1),
    )
    return tfds.as_numpy(dataset)
