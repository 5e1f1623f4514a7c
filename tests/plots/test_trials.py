"""The plot of a search's trials."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from cbir_tf.config.ranges import Choices, Range
from cbir_tf.plots.style import RIGHT
from cbir_tf.plots.trials import trials_plot

SPACE = (
    Range("optimizer.learning_rate", 1e-5, 1e-2, None, True, False),
    Range("model.embedding_size", 32, 256, 32, False, True),
    Choices("model.hidden", ("[]", "[512]", "[1024, 512, 256, 128, 64]", "[$x$]", "[2]")),
)


def rows(*states: str):
    random = np.random.default_rng(0)
    return [
        {
            "number": number,
            "state": state,
            "value": None if state == "failed" else float(random.random()),
            "parameters": {
                "optimizer.learning_rate": float(10 ** random.uniform(-5, -2)),
                "model.embedding_size": int(32 * random.integers(1, 9)),
                "model.hidden": SPACE[2].values[random.integers(5)],
            },
        }
        for number, state in enumerate(states)
    ]


@pytest.mark.parametrize(
    ("states", "has_best"),
    [
        (("complete",), True),
        (("complete", "failed", "pruned") * 8, True),
        (("pruned", "pruned"), False),
        (("failed",), False),
        ((), False),
    ],
)
def test_the_best_trial_is_marked_if_there_is_one(tmp_path, states, has_best):
    drawn, best = rows(*states), 0 if has_best else None
    path = trials_plot(tmp_path / "trials.png", drawn, SPACE, "val_map_at_r", best)
    pixels = np.asarray(Image.open(path).convert("RGB"))
    colour = [int(RIGHT[each : each + 2], 16) for each in (1, 3, 5)]
    assert ((pixels == colour).all(axis=2).sum() > 50) == has_best
