"""Label sets and class levels from a column of the images' metadata."""

from __future__ import annotations

from collections.abc import Mapping

from cbir_tf.errors import UserError, nearest
from cbir_tf.features.filters import listed
from cbir_tf.types import UNLABELLED, ImageSet


def label_sets_of(images: ImageSet, column: str) -> dict[str, list[str]]:
    """The comma-separated values of each image in a column, by id; an empty list where it has none.

    Raises:
        UserError: no image has the column.

    Example:
        >>> images = ImageSet(["a"], (b"",), [0], [""], ("cat",), ({"all": "cat, sofa"},))
        >>> label_sets_of(images, "all")
        {'a': ['cat', 'sofa']}
    """
    return {id_: listed(value) for id_, value in _values(images, column).items()}


def level_of(images: ImageSet, column: str) -> dict[str, str]:
    """The value that the images of each class have in a column: class name -> value.

    Unlabelled images and those without a value are ignored.

    Raises:
        UserError: no image has the column, or the images of one class have different values.

    Example:
        >>> images = ImageSet(["a"], (b"",), [0], [""], ("cat",), ({"kind": "animal"},))
        >>> level_of(images, "kind")
        {'cat': 'animal'}
    """
    first: dict[str, tuple[str, str]] = {}
    for label, (id_, value) in zip(images.labels, _values(images, column).items(), strict=True):
        if label == UNLABELLED or not value:
            continue
        name = images.class_names[label]
        known, of = first.setdefault(name, (value, id_))
        if known != value:
            raise UserError(
                f"column {column!r}: not a level of the classes: in the class {name!r}, {of!r} has "
                f"{known!r} and {id_!r} has {value!r}; choose another column"
            )
    return {name: value for name, (value, _) in first.items()}


def _values(images: ImageSet, column: str) -> Mapping[str, str]:
    names = sorted({name for each in images.metadata for name in each})
    if column not in names:
        advice = nearest(column, names) if names else "the images have no metadata"
        raise UserError(f"no column {column!r}; {advice}")
    return {
        id_: str(columns.get(column, ""))
        for id_, columns in zip(images.ids.tolist(), images.metadata, strict=True)
    }
