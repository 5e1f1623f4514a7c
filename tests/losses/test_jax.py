"""With JAX as Keras' back end the losses train in `fit`, with TensorFlow's values and gradients."""

from __future__ import annotations

import json
import os
import runpy
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from cbir_tf.losses import LOSSES

pytest.importorskip("jax")

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
RECORDED = HERE / "tensorflow_addons_0.23.0.json"
"""Values and gradients of TensorFlow Addons; those of some cases are computed with JAX, too."""

# What both back ends do: two steps of plain gradient descent from the same weights, so that the
# second loss and the trained weights depend on the gradients. Losses beside proxies take the four
# outputs for similarities to the proxies of four classes.
FIT = """
import keras, numpy as np
from cbir_tf.losses import LOSSES


def trained(name):
    loss = LOSSES["triplet_hard"](soft=True) if name == "soft" else LOSSES[name]()
    random = np.random.default_rng(0)
    images, kernel = random.normal(size=(24, 4)), random.normal(size=(4, 4))
    layer = keras.layers.Dense(4)
    model = keras.Sequential([keras.Input((4,)), layer, keras.layers.UnitNormalization()])
    layer.set_weights([kernel, np.zeros(4)])
    model.compile(keras.optimizers.SGD(0.05), loss)
    history = model.fit(images, np.arange(24) % 4, batch_size=24, epochs=2, verbose=0).history
    return np.concatenate([history["loss"], keras.ops.convert_to_numpy(layer.kernel).ravel()])
"""
UNDER_JAX = f"""
import json, sys
import jax
{FIT}
from cbir_tf.losses import triplet_hard_loss, triplet_semihard_loss

results = {{name: trained(name) for name in [*LOSSES, "soft"]}}
for number, case in enumerate(json.load(open(sys.argv[1]))):
    if case["metric"] in ("L2", "squared-L2", "angular") and len(case["labels"]) == 6:
        def loss(rows):
            given = case["labels"], rows, case["margin"]
            if case["loss"] == "semihard":
                return triplet_semihard_loss(*given, case["metric"])
            return triplet_hard_loss(*given, case["loss"] == "soft", case["metric"])

        rows = np.array(case["embeddings"], "float32")
        value, gradient = jax.value_and_grad(loss)(rows)
        results[f"value {{number}}"], results[f"gradient {{number}}"] = value, gradient

rows = np.random.default_rng(1).normal(size=(6, 3)).astype("float32")
small = np.arange(6) // 2
large = [small * 2**32 + offset for offset in (0, 2**53, -(2**62))]
results["large labels"] = [float(triplet_semihard_loss(each, rows)) for each in (small, *large)]
np.savez(sys.argv[2], **results)
"""


@pytest.fixture(scope="module")
def under_jax(tmp_path_factory) -> dict[str, np.ndarray]:
    file = tmp_path_factory.mktemp("jax") / "results.npz"
    done = subprocess.run(
        [sys.executable, "-c", UNDER_JAX, RECORDED, file],
        cwd=ROOT,
        env=os.environ | {"KERAS_BACKEND": "jax", "JAX_PLATFORMS": "cpu"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    with np.load(file) as results:
        return dict(results)


@pytest.mark.slow
@pytest.mark.parametrize("name", [*LOSSES, "soft"])
def test_fit_gives_the_losses_and_weights_of_tensorflow(under_jax, tmp_path, name):
    (tmp_path / "fit.py").write_text(FIT)
    expected = runpy.run_path(str(tmp_path / "fit.py"))["trained"](name)
    assert expected[0] > 0 and expected[1] != expected[0]
    np.testing.assert_allclose(under_jax[name], expected, rtol=1e-4, atol=1e-5)


@pytest.mark.slow
def test_recorded_values_and_gradients_of_tensorflow_addons(under_jax):
    cases = json.loads(RECORDED.read_text())
    numbers = [int(each.removeprefix("value ")) for each in under_jax if each.startswith("value ")]
    assert {cases[each]["loss"] for each in numbers} == {"semihard", "hard", "soft"}
    for number in numbers:
        gradient = np.array(cases[number]["gradient"])
        scale = max(1.0, np.abs(gradient).max())
        found = under_jax[f"value {number}"]
        np.testing.assert_allclose(found, cases[number]["value"], rtol=1e-5, atol=1e-5)
        np.testing.assert_allclose(under_jax[f"gradient {number}"], gradient, atol=1e-5 * scale)


@pytest.mark.slow
def test_integer_labels_of_64_bits_stay_apart(under_jax):
    small, *large = under_jax["large labels"]
    assert small > 0
    assert large == [small] * 3
