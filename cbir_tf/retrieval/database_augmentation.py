"""Database-side augmentation, and its vectors kept beside the index.

They take a search for every image of the gallery to make, so that a run keeps them:
augmented.npz holds the vectors in order of id, how many neighbours took part, by which metric, and
the digest of the ids and vectors they were made from.
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
    """Write the vectors that `augmented` of `cbir_tf.retrieval.re_ranking` made, ids ascending.

    Raises:
        UserError: they cannot be written.
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
    """The vectors kept; None where there are none, or of another gallery or setting.

    Args:
        folder: of the index.
        original: the gallery, ids ascending.
        neighbours: that take part.
        metric: by which they are the nearest.
    """
    try:
        with np.load(folder / FILE_NAME, allow_pickle=False) as kept:
            made = int(kept["neighbours"]), str(kept["metric"]), str(kept["digest"])
            if made != (neighbours, metric, digest(original)):
                return None
            return Embeddings(original.ids, kept["vectors"], original.labels)
    except (OSError, EOFError, KeyError, ValueError, BadZipFile):  # they are made again
        return None
