"""Vectors of database-side augmentation, stored beside the index.

Their computation needs a search for each image of the gallery, so a run stores them: augmented.npz
contains the vectors in order of id, the number of neighbours, the metric, and the digest of the
original ids and vectors.
"""

from __future__ import annotations

from pathlib import Path
from zipfile import BadZipFile

import numpy as np

from cbir_tf.search.index_manifest import digest
from cbir_tf.storage.files import replacing
from cbir_tf.types import Embeddings

FILE_NAME = "augmented.npz"


def save_augmented(
    folder: Path, augmented: Embeddings, original: Embeddings, neighbours: int, metric: str
) -> None:
    """Write the vectors of `cbir_tf.retrieval.re_ranking.augmented`, ids ascending.

    Raises:
        UserError: the file cannot be written.
    """
    with replacing(folder / FILE_NAME) as temporary, temporary.open("wb") as file:
        np.savez(
            file,
            vectors=augmented.vectors,
            neighbours=neighbours,
            metric=metric,
            digest=digest(original),
        )


def load_augmented(
    folder: Path, original: Embeddings, neighbours: int, metric: str
) -> Embeddings | None:
    """The stored vectors; None if they are missing, or of another gallery or setting.

    Args:
        folder: of the index.
        original: the gallery, ids ascending.
        neighbours: number of neighbours besides the vector itself.
        metric: distance of the neighbours.
    """
    try:
        with np.load(folder / FILE_NAME, allow_pickle=False) as kept:
            made = int(kept["neighbours"]), str(kept["metric"]), str(kept["digest"])
            if made != (neighbours, metric, digest(original)):
                return None
            return Embeddings(original.ids, kept["vectors"], original.labels)
    except (OSError, EOFError, KeyError, ValueError, BadZipFile):  # they are made again
        return None
