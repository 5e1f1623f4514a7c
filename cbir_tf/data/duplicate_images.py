"""The images of a search for duplicates: the files it compares, and the members of its groups."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from cbir_tf.data.duplicate_groups import Copy, Kind
from cbir_tf.data.inspection import Inspection
from cbir_tf.progress import logger
from cbir_tf.storage.addresses import address_of
from cbir_tf.types import UNLABELLED, ImageSet


@dataclass(frozen=True)
class DuplicateImage:
    """One image of a group of duplicates; its fields are those of `cbir duplicates --json`.

    Attributes:
        kind: keep, exact, near or similar, as of `duplicate_groups.Copy`.
        id: of the image.
        path: of its file, or its address on S3; None where a data set holds it otherwise.
        width, height: of the picture held upright, in pixels.
        bytes: size of the file.
        digest: SHA-256 of the file, in hexadecimal.
        bits: by which its difference hash differs from that of the image to keep, of 256.
        distance: of its embedding from that of the image to keep; None where embeddings were not
            compared.
    """

    kind: Kind
    id: str
    path: str | None
    width: int
    height: int
    bytes: int
    digest: str
    bits: int
    distance: float | None

    @classmethod
    def of(
        cls, inspection: Inspection, copy: Copy, distance: float | None = None
    ) -> DuplicateImage:
        """A member of a group of `duplicate_groups`, described."""
        source = inspection.images.sources[copy.position]
        return cls(
            kind=copy.kind,
            id=str(inspection.images.ids[copy.position]),
            path=address_of(source) if isinstance(source, Path) else None,
            width=copy.width,
            height=copy.height,
            bytes=copy.size,
            digest=str(inspection.digests[copy.position]),
            bits=copy.bits,
            distance=None if distance is None else round(distance, 6),
        )


def without_links(ids: Sequence[str], sources: Sequence[Path | bytes]) -> ImageSet:
    """Unlabelled images in their order, each file once; a link loses to the file it leads to.

    A user who takes a link for a copy may delete the only file.

    Args:
        ids: N unique strings.
        sources: N paths or encoded image bytes.
    """
    places = [
        os.path.realpath(source) if isinstance(source, Path) else id_
        for id_, source in zip(ids, sources, strict=True)
    ]
    linked = [isinstance(source, Path) and source.is_symlink() for source in sources]
    rows: dict[str, int] = {}
    for row in np.argsort(linked, kind="stable").tolist():  # the files themselves first
        rows.setdefault(places[row], row)
    kept = sorted(rows.values())
    if len(kept) < len(ids):
        logger.info("%d links to other images left out", len(ids) - len(kept))
    count = len(kept)
    return ImageSet(
        ids=np.array([ids[row] for row in kept]),
        sources=tuple(sources[row] for row in kept),
        labels=np.full(count, UNLABELLED),
        split=np.full(count, ""),
        class_names=(),
    )
