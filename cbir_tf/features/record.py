"""The rows of a feature store: images, and the galleries of further folders."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from cbir_tf.storage.addresses import address_of

OWN = "run"
"""Gallery of the run's own images, and of those added while it was served."""
UNFINISHED = " (unfinished)"
"""Follows the name of a gallery while its first extraction has not ended: it is not searched."""
EARLIER = "earlier"
"""Gallery of other images that were extracted before galleries had names."""


@dataclass(frozen=True)
class Record:
    """One image of the store, without its vector.

    Attributes:
        id: unique.
        path: of the file, None for images that are not files.
        label: counts into the store's class names, -1 for unlabelled.
        split: train, validation, test, or empty.
        digest: SHA-256 of the encoded image.
        metadata: further columns, text or numbers by name.
        gallery: name of the gallery it belongs to.
    """

    id: str
    path: Path | None
    label: int
    split: str
    digest: str
    metadata: Mapping[str, str | float] = field(default_factory=dict)
    gallery: str = OWN

    @property
    def described(self) -> tuple[str | None, int, str, str, str]:
        """Path, label, split, metadata and gallery, as the store has them."""
        path = None if self.path is None else address_of(self.path)
        metadata = json.dumps(dict(self.metadata), ensure_ascii=False)
        return path, int(self.label), self.split, metadata, self.gallery


@dataclass(frozen=True)
class GalleryFolder:
    """A folder that was extracted into a run beside its own images.

    Attributes:
        name: of the gallery; several folders may share one.
        folder: the folder, or its manifest.
        complete: whether its first extraction has ended; until then its images are not searched.
    """

    name: str
    folder: Path
    complete: bool
