"""Compare our BiT R50x1 with what reference.py recorded from transformers' BitModel.

    python conformance/bit/check.py OUT.npz

Runs in the environment of cbir_tf. The same random weights travel through an .npz file in the
official layout. In float64 the two must be the same function, to the 1e-6 that the recorded
float32 can tell; in float32, as it is used, every feature must lie within 1e-4. Exit status 1 if
not.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import keras
import numpy as np
from official_layout import random_image, random_weights

from cbir_tf.models.bit import build_bit_r50x1, load_bit_weights

TOLERANCES = {"float64": 1e-6, "float32": 1e-4}


def build(dtype: str) -> keras.Model:
    """Our model of this precision with the random weights."""
    keras.config.set_dtype_policy(dtype)
    model = build_bit_r50x1("bit")
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "random.npz"
        np.savez(file, **random_weights())
        load_bit_weights(model, file)
    return model


def main(recorded: str) -> int:
    """Print the largest difference for every recorded size; 0 if all are within tolerance."""
    agreed = True
    for dtype, tolerance in TOLERANCES.items():
        model = build(dtype)
        with np.load(recorded, allow_pickle=False) as maps:
            for size, expected in maps.items():
                image = random_image(*map(int, size.split("x"))).astype(dtype)
                features = np.asarray(model(image))[0]
                of_map = np.abs(features - expected).max()
                pooled = np.abs(features.mean((0, 1)) - expected.mean((0, 1), dtype=dtype)).max()
                agreed &= bool(max(of_map, pooled) <= tolerance)
                print(
                    f"{dtype} {size:>7}: features up to {expected.max():.2f}, largest difference "
                    f"{of_map:.1e}, pooled {pooled:.1e}, allowed {tolerance:.0e}"
                )
    print(f"BiT R50x1 and transformers' BitModel {'agree' if agreed else 'DIFFER'}")
    return 0 if agreed else 1


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
