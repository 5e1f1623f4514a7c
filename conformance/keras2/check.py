"""Load the Keras 2 files that record.py has written, and compare with their recorded embeddings.

    python conformance/keras2/check.py FOLDER

Runs in the environment of cbir_tf. Each file is `model.weights` of a model with hidden layers of
2048 and an embedding of 128. Exit status 1 if an embedding is not the golden one to 1e-4 of its
length.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import keras
import numpy as np

from cbir_tf.config import model as config_model
from cbir_tf.models import build_embedder
from cbir_tf.models.golden import Golden
from cbir_tf.releases.golden_image import golden_image

SIZE = (96, 96)
ALLOWED = 1e-4


def main(folder: Path) -> int:
    """Print the distance for every file and preprocessing; 0 if all are within what is allowed."""
    agreed = True
    image = golden_image(*SIZE)[np.newaxis]
    files = sorted(folder.glob("*.h5"))
    for file in files:
        for kind, embedding in json.loads(file.with_suffix(".json").read_text()).items():
            keras.backend.clear_session()
            settings = config_model.Model(
                backbone=file.stem.partition("-")[0],
                weights=str(file),
                hidden=(2048,),
                embedding_size=128,
                preprocessing=kind,
            )
            golden = Golden(SIZE, np.array(embedding, dtype=np.float32), ALLOWED)
            distance = golden.distance(build_embedder(settings).predict_on_batch(image)[0])
            agreed &= distance <= ALLOWED
            print(f"{file.name:24} {kind:4}: {distance:.1e} of the length, allowed {ALLOWED:.0e}")
    agreed &= bool(files)
    print(f"our embedders and Keras 2's {'agree' if agreed else 'DIFFER'}")
    return 0 if agreed else 1


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
