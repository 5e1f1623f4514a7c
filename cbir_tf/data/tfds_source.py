"""Images from TensorFlow Datasets, read without decoding them."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import numpy as np

from cbir_tf.config import Data
from cbir_tf.data.folder_source import SPLIT_NAMES
from cbir_tf.errors import UserError, nearest
from cbir_tf.types import ImageSet

log = logging.getLogger(__name__)


def tensorflow_dataset(data: Data) -> ImageSet:
    """An image classification data set by its TensorFlow Datasets name, as tf_flowers.

    Sources are the encoded images as stored; ids are `<split>/<number>` in stored order. Splits
    named train, validation (val, valid) or test are kept; images of others get none.

    Args:
        data: `dataset` may name a configuration and version (`name/config:1.0.0`); `path` is the
            folder of data sets, or of this one prepared set; its default is TFDS's own.

    Raises:
        UserError: no such data set, it cannot be downloaded, or it has no image with a class.
    """
    assert data.dataset is not None  # config.Data sees to it
    path = data.path.expanduser() if data.path else None
    builder = _prepared(data.dataset, path)
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
        class_names=tuple(builder.info.features[label_key].names),
    )


def _prepared(name: str, path: Path | None) -> Any:
    """The data set's builder, its files in place."""
    import tensorflow_datasets as tfds  # noqa: PLC0415  takes seconds

    if path and (path / "dataset_info.json").is_file():
        return tfds.builder_from_directory(path)
    try:
        builder = tfds.builder(name, data_dir=path)
    except tfds.core.DatasetNotFoundError:
        hint = nearest(name, tfds.list_builders())
        raise UserError(f"data.dataset: TensorFlow Datasets has no {name!r}; {hint}") from None
    if not builder.is_prepared():
        try:
            builder.download_and_prepare()
        except Exception as error:  # whatever its scripts and servers raise
            reason = " ".join(str(error).split())[:200]
            raise UserError(
                f"data.dataset: {name} is not in {builder.data_dir} and cannot be downloaded: "
                f"{reason}; set data.path to the folder that has it"
            ) from error
    return builder


def _keys(name: str, info: Any) -> tuple[str, str]:
    """The names of the image and of the class among the features."""
    import tensorflow_datasets as tfds  # noqa: PLC0415  takes seconds

    features = info.features
    for image_key, label_key in (info.supervised_keys or ("image", "label"), ("image", "label")):
        if (
            isinstance(features.get(image_key), tfds.features.Image)
            and isinstance(features.get(label_key), tfds.features.ClassLabel)
            and features[image_key].np_dtype == np.uint8
        ):
            return image_key, label_key
    raise UserError(
        f"data.dataset: {name} is not for image classification: it has no image with a class, "
        f"but {', '.join(features)}"
    )


def _records(builder: Any, split: str, image_key: str) -> Any:
    import tensorflow_datasets as tfds  # noqa: PLC0415  takes seconds

    dataset = builder.as_dataset(
        split=split,
        shuffle_files=False,
        decoders={image_key: tfds.decode.SkipDecoding()},
        # One file after the other, so that numbers are the stored order.
        read_config=tfds.ReadConfig(interleave_cycle_length=1),
    )
    return tfds.as_numpy(dataset)
