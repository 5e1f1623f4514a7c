"""The embedder: trainable layers, saving, and errors (backbones: test_backbones.py)."""

from __future__ import annotations

import subprocess
import sys

import keras
import numpy as np
import pytest

from cbir_tf.config import model as config_model
from cbir_tf.errors import UserError
from cbir_tf.models import build_embedder, frozen_batch_norm_digest, load_embedder

CHEAP = {
    "small_cnn": {"width": 8},
    "mini_densenet": {"growth": 4, "layers_per_block": 2},
    "mobilenet": {"alpha": 0.25},
    "mobilenet_v2": {"alpha": 0.35},
}


def model_config(backbone: str = "small_cnn", **changes: object) -> config_model.Model:
    given = {"weights": None, "options": CHEAP.get(backbone, {}), "embedding_size": 16}
    return config_model.Model(backbone=backbone, **(given | changes))


def images(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (*shape, 3), dtype=np.uint8)


def values(model: keras.Model) -> dict[str, np.ndarray]:
    return {each.path: np.array(each) for each in model.variables}


def test_a_head_that_trains_alone_and_pools_by_gem_survives_saving(tmp_path):
    embedder = build_embedder(model_config(trainable="head", pooling="gem"))
    embedder.save(tmp_path / "model.keras")
    again = load_embedder(tmp_path / "model.keras")
    batch = images(3, 64, 48)
    assert np.array_equal(again.predict_on_batch(batch), embedder.predict_on_batch(batch))
    assert [each.path for each in again.trainable_variables] == [
        "pooling/p",
        "embedding/kernel",
        "embedding/bias",
    ]


@pytest.mark.parametrize("backbone", CHEAP)
def test_eager_calls_and_batches_of_another_size_differ_by_rounding_only(backbone):
    embedder = build_embedder(model_config(backbone))
    batch = images(3, 64, 48)
    expected = embedder.predict(batch, verbose=0)
    np.testing.assert_allclose(embedder(batch, training=False), expected, atol=1e-6)
    singly = embedder.predict(batch, batch_size=1, verbose=0)
    np.testing.assert_allclose(singly, expected, atol=1e-6)


@pytest.mark.slow
def test_a_fresh_process_with_keras_alone_reads_the_file(tmp_path):
    embedder = build_embedder(model_config("mobilenet_v2"))
    embedder.save(tmp_path / "model.keras")
    np.save(tmp_path / "images.npy", images(2, 64, 64))
    program = (
        "import sys, keras, numpy; model = keras.saving.load_model(sys.argv[1] + '/model.keras');"
        "images = numpy.load(sys.argv[1] + '/images.npy');"
        "numpy.save(sys.argv[1] + '/vectors.npy', model.predict_on_batch(images));"
        "assert 'cbir_tf' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", program, str(tmp_path)], check=True)
    expected = embedder.predict_on_batch(images(2, 64, 64))
    assert np.array_equal(np.load(tmp_path / "vectors.npy"), expected)


@pytest.mark.parametrize("name", ["mixed_bfloat16", "mixed_float16"])
def test_vectors_of_a_mixed_policy_are_close_to_those_of_float32(name):
    exact = build_embedder(model_config()).predict_on_batch(images(2, 32, 32))
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(name)
    try:
        vectors = build_embedder(model_config()).predict_on_batch(images(2, 32, 32))
    finally:
        keras.config.set_dtype_policy(before)
    assert 0 < np.abs(vectors - exact).max() < 0.05


def test_the_seed_decides_the_weights_and_leaves_no_trace():
    import random

    random.seed(5)
    expected = random.random()
    random.seed(5)
    one, same, other = (build_embedder(model_config(), seed) for seed in (1, 1, 2))
    assert random.random() == expected
    batch = images(2, 32, 32)
    assert np.array_equal(one.predict_on_batch(batch), same.predict_on_batch(batch))
    assert not np.allclose(one.predict_on_batch(batch), other.predict_on_batch(batch))


def test_without_embedding_the_pooled_features_come_out():
    embedder = build_embedder(
        model_config("mobilenet_v2", embedding_size=None, normalize=False, trainable="head")
    )
    batch = images(2, 64, 64)
    signed = (batch / 127.5 - 1).astype(np.float32)
    features = np.asarray(embedder.get_layer("backbone")(signed)).mean(axis=(1, 2))
    np.testing.assert_allclose(embedder.predict_on_batch(batch), features, atol=1e-5)
    assert embedder.trainable_variables == []


def _changed_by_training(embedder: keras.Model) -> set[str]:
    embedder.compile(keras.optimizers.SGD(0.1), "mse")
    before = values(embedder)
    targets = np.random.default_rng(1).normal(size=(4, 16))
    embedder.fit(images(4, 64, 64), targets, epochs=2, verbose=0)
    return {path for path, value in values(embedder).items() if (value != before[path]).any()}


def test_training_the_head_changes_the_head_alone():
    embedder = build_embedder(model_config("mobilenet_v2", trainable="head", hidden=(8,)))
    assert _changed_by_training(embedder) == {
        f"{layer}/{kind}" for layer in ("hidden_1", "embedding") for kind in ("kernel", "bias")
    }


def test_the_digest_of_frozen_batch_norms_changes_with_any_value():
    embedder = build_embedder(model_config(batch_norm="frozen"))
    digest = frozen_batch_norm_digest(embedder)
    variable = embedder.get_layer("backbone").get_layer("stem_norm").moving_mean
    variable.assign(variable + 1)
    assert frozen_batch_norm_digest(embedder) != digest


def test_trained_batch_norm_updates_statistics_and_scales():
    embedder = build_embedder(model_config(batch_norm="trained"))
    digest = frozen_batch_norm_digest(embedder)
    changed = _changed_by_training(embedder)
    for kind in ("gamma", "beta", "moving_mean", "moving_variance"):
        assert f"stem_norm/{kind}" in changed
    assert frozen_batch_norm_digest(embedder) == digest  # of nothing


def test_training_from_a_layer_up_freezes_the_layers_below():
    embedder = build_embedder(
        model_config("mobilenet_v2", trainable="block_15_expand", batch_norm="trained")
    )
    changed = _changed_by_training(embedder)
    below = {
        variable.path
        for block in range(15)
        for layer in embedder.get_layer("backbone").layers
        if layer.name.startswith(("Conv1", "bn_Conv1", "expanded_conv", f"block_{block}_"))
        for variable in layer.variables
    }
    assert len(below) == 5 * 3 + 14 * 15  # one block without, fourteen with expansion
    assert not changed & below
    assert {"block_15_expand/kernel", "block_15_expand_BN/moving_mean", "Conv_1/kernel"} <= changed


def test_what_trains_survives_saving(tmp_path):
    embedder = build_embedder(model_config("mobilenet_v2", trainable="block_15_expand"))
    embedder.save(tmp_path / "model.keras")
    again = load_embedder(tmp_path / "model.keras")
    trained = [each.path for each in embedder.trainable_variables]
    assert [each.path for each in again.trainable_variables] == trained
    assert trained[0] == "block_15_expand/kernel"
    assert frozen_batch_norm_digest(again) == frozen_batch_norm_digest(embedder)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"backbone": "mobilenetv2"}, "model.backbone: no 'mobilenetv2'; did you mean"),
        ({"options": {"widht": 8}}, "model.options: small_cnn has no option 'widht'; did you mean"),
        (
            {"backbone": "vgg16", "options": {"alpha": 1}},
            "vgg16 has no option 'alpha'; it takes no",
        ),
        ({"options": {"width": -1}}, "small_cnn cannot be built with {'width': -1}"),
        ({"options": {"blocks": "two"}}, "small_cnn cannot be built with {'blocks': 'two'}"),
        ({"trainable": "stage3_blok1_first"}, "did you mean 'stage3_block1_first'"),
        ({"weights": "imagenet"}, "small_cnn has no 'imagenet'; give a file or null"),
        ({"backbone": "mobilenet_v2", "weights": "imagenet21k"}, "give imagenet or a file or null"),
    ],
)
def test_a_mistake_is_a_one_line_error_with_key_and_remedy(changes, message):
    with pytest.raises(UserError) as error:
        build_embedder(model_config(**changes))
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_only_whole_embedders_are_loaded(tmp_path):
    with pytest.raises(UserError, match=r"absent\.keras: no such model file"):
        load_embedder(tmp_path / "absent.keras")
    whole = tmp_path / "model.keras"
    build_embedder(model_config()).save(whole)
    for size in (0, 100, whole.stat().st_size // 2):
        (tmp_path / "cut.keras").write_bytes(whole.read_bytes()[:size])
        with pytest.raises(UserError, match=r"cut\.keras: could not be read as a model"):
            load_embedder(tmp_path / "cut.keras")
    keras.Sequential([keras.Input((4,)), keras.layers.Dense(2)]).save(tmp_path / "other.keras")
    with pytest.raises(UserError, match=r"other\.keras: not an embedder"):
        load_embedder(tmp_path / "other.keras")
