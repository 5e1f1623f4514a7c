"""Images as a folder or a list names them, and the set made of them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from cbir_tf.data.text import nfc
from cbir_tf.types import UNLABELLED, ImageSet

SPLIT_NAMES = {
    "train": "train",
    "validation": "validation",
    "val": "validation",
    "valid": "validation",
    "test": "test",
}


@dataclass(frozen=True)
class Entry:
    """One image.

    Attributes:
        path: below the root; of an image elsewhere, the path by which it goes.
        label: name of its class, empty where it has none.
        split: train, validation, test, or empty.
        metadata: further columns, text or numbers by name.
        source: its file; None: the path below the root.
    """

    path: str
    label: str
    split: str
    metadata: Mapping[str, str | float] = field(default_factory=dict)
    source: Path | None = None


def image_set(root: Path, entries: Sequence[Entry]) -> ImageSet:
    """The set of some images; ids are their paths, classes are sorted by name, both in NFC.

    Of two files whose names differ by their Unicode form alone, each keeps its own as its id.
    """
    composed = [nfc(each.path) for each in entries]
    times = Counter(composed)
    labels = [nfc(each.label) for each in entries]
    class_names = tuple(sorted({*labels} - {""}))
    numbers = {name: number for number, name in enumerate(class_names)} | {"": UNLABELLED}
    return ImageSet(
        ids=np.array(
            [
                name if times[name] == 1 else each.path
                for name, each in zip(composed, entries, strict=True)
            ]
        ),
        sources=tuple(each.source or root / each.path for each in entries),
        labels=np.array([numbers[label] for label in labels]),
        split=np.array([each.split for each in entries]),
        class_names=class_names,
        metadata=tuple(each.metadata for each in entries),
    )
