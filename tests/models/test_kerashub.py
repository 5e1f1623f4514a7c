"""KerasHub's transformers beside KerasHub itself, with tiny random networks and presets."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest

from cbir_tf.config import model as config_model
from cbir_tf.errors import UserError
from cbir_tf.models import build_embedder, load_embedder
from cbir_tf.models.backbones import build_backbone

keras_hub = pytest.importorskip("keras_hub")

SIZE = {"num_layers": 1, "hidden_dim": 8, "num_heads": 2}
TINY = {
    "dinov2": {"patch_size": 14, **SIZE, "intermediate_dim": 16},
    "dinov3": {"patch_size": 16, **SIZE, "intermediate_dim": 16},
    "vit": {"patch_size": 16, **SIZE, "mlp_dim": 16},
    "swin": {"embed_dim": 8, "depths": [1, 1], "num_heads": [2, 2], "window_size": 4},
}
GRIDS = {"dinov2": (2, 2, 8), "dinov3": (2, 2, 8), "vit": (2, 2, 8), "swin": (4, 4, 16)}
IMAGENET = np.float32([0.485, 0.456, 0.406]), np.float32([0.229, 0.224, 0.225])
HALF = np.float32(0.5), np.float32(0.5)


def images(side: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (2, side, side, 3), dtype=np.uint8)


def embedder(kind: str, weights: str | None = None, side: int = 32, **options) -> keras.Model:
    settings = config_model.Model(
        backbone=kind, weights=weights, options=options, embedding_size=None, normalize=False
    )
    return build_embedder(settings, 0, (side, side))


def hub_of(model: keras.Model) -> keras.Model:
    layers = model.get_layer("backbone").layers
    return next(each for each in layers if isinstance(each, keras_hub.models.Backbone))


def tokens(hub: keras.Model, pixels: np.ndarray) -> np.ndarray:
    """What KerasHub's own model gives."""
    names = list(hub.input) if isinstance(hub.input, dict) else []
    return np.asarray(hub(dict.fromkeys(names, pixels) if names else pixels))


@pytest.mark.parametrize("kind", TINY)
def test_vectors_are_the_mean_of_kerashub_s_patches_and_survive_saving(kind, tmp_path):
    model = embedder(kind, **TINY[kind])
    hub = hub_of(model)
    side = 28 if kind == "dinov2" else 32  # the nearest to 32 in whole patches
    assert tuple(hub.image_shape) == (side, side, 3)
    assert model.get_layer("backbone").output_shape[1:] == GRIDS[kind]
    mean, deviation = HALF if kind == "vit" else IMAGENET
    batch = images(side)
    every = tokens(hub, (batch / np.float32(255) - mean) / deviation)
    first = {"dinov2": 1, "dinov3": 5, "vit": 1, "swin": 0}[kind]  # DINOv3 has 4 registers
    vectors = model.predict_on_batch(batch)
    np.testing.assert_allclose(vectors, every[:, first:].mean(axis=1), atol=1e-4)
    model.save(tmp_path / "model.keras")
    again = load_embedder(tmp_path / "model.keras")
    assert np.array_equal(again.predict_on_batch(batch), vectors)


def test_the_class_token_alone():
    model = embedder("vit", **TINY["vit"], tokens="class")
    batch = images(32)
    every = tokens(hub_of(model), batch / np.float32(127.5) - 1)
    np.testing.assert_allclose(model.predict_on_batch(batch), every[:, 0], atol=1e-4)


def test_what_dinov2_learns_is_saved(tmp_path):
    """KerasHub's layer forgets position embeddings whose sum has fallen: they are not trained."""
    model = embedder("dinov2", **TINY["dinov2"])
    positions = hub_of(model).embeddings.interpolated_position_embeddings
    before = np.array(positions)
    model.compile(keras.optimizers.SGD(1.0), "mse")
    model.train_on_batch(images(28), np.ones((2, 8)))
    np.testing.assert_array_equal(positions, before)
    model.save(tmp_path / "model.keras")
    again = load_embedder(tmp_path / "model.keras")
    expected = model.predict_on_batch(images(28))
    assert np.array_equal(again.predict_on_batch(images(28)), expected)


def test_a_preset_s_position_embeddings_are_interpolated_as_kerashub_does(tmp_path):
    hub = keras_hub.models.DINOV2Backbone(
        **TINY["dinov2"], image_shape=(70, 70, 3), position_embedding_shape=(70, 70, 3)
    )
    hub.save_to_preset(tmp_path)
    theirs = keras_hub.models.DINOV2Backbone.from_preset(str(tmp_path), image_shape=(28, 28, 3))
    pixels = np.random.default_rng(0).normal(size=(2, 28, 28, 3)).astype(np.float32)
    ours = hub_of(embedder("dinov2", str(tmp_path)))
    np.testing.assert_allclose(tokens(ours, pixels), tokens(theirs, pixels), atol=1e-5)
    same = hub_of(embedder("dinov2", str(tmp_path), side=70))
    pixels = np.random.default_rng(0).normal(size=(2, 70, 70, 3)).astype(np.float32)
    np.testing.assert_allclose(tokens(same, pixels), tokens(hub, pixels), atol=1e-5)


def test_a_vit_of_another_size_keeps_its_weights_and_its_preset_s_pixels(tmp_path):
    hub = keras_hub.models.ViTBackbone(**TINY["vit"], image_shape=(64, 64, 3))
    hub.save_to_preset(tmp_path)
    converter = keras_hub.layers.ViTImageConverter(image_size=(64, 64), scale=1 / 255, offset=-0.3)
    converter.save_to_preset(tmp_path)
    model = embedder("vit", str(tmp_path))
    for old, new in zip(hub.weights, hub_of(model).weights, strict=True):
        if "position_embedding" not in old.path:
            np.testing.assert_array_equal(old, new)
    batch = images(32)
    every = tokens(hub_of(model), batch / np.float32(255) - np.float32(0.3))
    expected = every[:, 1:].mean(axis=1)
    np.testing.assert_allclose(model.predict_on_batch(batch), expected, atol=1e-4)


def test_a_folder_in_transformers_layout_gives_its_tensors_and_pixels(tmp_path):
    save_file = pytest.importorskip("safetensors.numpy").save_file
    rng = np.random.default_rng(0)
    block = "vit.encoder.layer.0"
    shapes = {
        "vit.embeddings.cls_token": (1, 1, 8),
        "vit.embeddings.position_embeddings": (1, 5, 8),
        "vit.embeddings.patch_embeddings.projection.weight": (8, 3, 16, 16),
        "vit.embeddings.patch_embeddings.projection.bias": (8,),
        f"{block}.intermediate.dense.weight": (16, 8),
        f"{block}.intermediate.dense.bias": (16,),
        f"{block}.output.dense.weight": (8, 16),
        f"{block}.output.dense.bias": (8,),
    }
    for part in ("attention.query", "attention.key", "attention.value", "output.dense"):
        shapes[f"{block}.attention.{part}.weight"] = (8, 8)
        shapes[f"{block}.attention.{part}.bias"] = (8,)
    for norm in (f"{block}.layernorm_before", f"{block}.layernorm_after", "vit.layernorm"):
        shapes |= {f"{norm}.weight": (8,), f"{norm}.bias": (8,)}
    tensors = {name: rng.normal(size=shape).astype(np.float32) for name, shape in shapes.items()}
    save_file(tensors, tmp_path / "model.safetensors")
    settings = {"model_type": "vit", "image_size": 32, "patch_size": 16, "num_hidden_layers": 1}
    settings |= {"num_attention_heads": 2, "hidden_size": 8, "intermediate_size": 16}
    settings |= {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0, "qkv_bias": True}
    (tmp_path / "config.json").write_text(json.dumps(settings))
    mean, deviation = [0.1, 0.2, 0.3], [0.4, 0.5, 0.6]
    (tmp_path / "preprocessor_config.json").write_text(
        json.dumps({"image_mean": mean, "image_std": deviation})
    )
    model = embedder("vit", str(tmp_path))
    hub = hub_of(model)
    _, embedding, encoder = hub.layers
    kernel = tensors["vit.embeddings.patch_embeddings.projection.weight"]
    np.testing.assert_array_equal(embedding.patch_embedding.kernel, kernel.transpose(2, 3, 1, 0))
    mlp = tensors[f"{block}.intermediate.dense.weight"]
    np.testing.assert_array_equal(encoder.encoder_layers[0].mlp.dense_1.kernel, mlp.T)
    batch = images(32)
    pixels = (batch / np.float32(255) - np.float32(mean)) / np.float32(deviation)
    expected = tokens(hub, pixels)[:, 1:].mean(axis=1)
    np.testing.assert_allclose(model.predict_on_batch(batch), expected, atol=1e-4)


@pytest.mark.parametrize(
    ("kind", "weights", "options", "message"),
    [
        ("dinov2", "kerashub:dinov2_bas", {}, "no preset 'dinov2_bas' of dinov2; did you mean"),
        ("vit", "imagenet", {}, "vit has no 'imagenet'; give kerashub:PRESET"),
        ("vit", None, {"depth": 3}, "vit has no option 'depth'"),
        ("vit", None, {"tokens": "all"}, "tokens must be patches or class, got 'all'"),
        ("swin", None, {"tokens": "class"}, "swin has no option 'tokens'"),
    ],
)
def test_a_mistake_is_a_one_line_error(kind, weights, options, message):
    with pytest.raises(UserError) as error:
        build_backbone(kind, options, weights)
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_a_folder_that_is_no_preset_or_another_s_is_named(tmp_path):
    with pytest.raises(UserError, match=r"model\.weights: .*could not be loaded.*check the folder"):
        build_backbone("vit", {}, str(tmp_path))
    hub = keras_hub.models.ViTBackbone(**TINY["vit"], image_shape=(32, 32, 3))
    hub.save_to_preset(tmp_path)
    with pytest.raises(UserError, match="could not be loaded: Saved preset has type `ViTBackbone`"):
        build_backbone("swin", {}, str(tmp_path))


@pytest.mark.slow
def test_without_keras_hub_both_building_and_reading_say_what_to_install(tmp_path):
    embedder("vit", **TINY["vit"]).save(tmp_path / "model.keras")
    (tmp_path / "hidden.py").write_text(
        "import importlib.util, sys\n"
        "class Hidden:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        if name.split('.')[0] == 'keras_hub':\n"
        "            raise ModuleNotFoundError(name)\n"
        "sys.meta_path.insert(0, Hidden())\n"
        "from cbir_tf.errors import UserError\n"
        "from cbir_tf.models import load_embedder\n"
        "from cbir_tf.models.backbones import build_backbone\n"
        "for step, given in ((build_backbone, ('vit', {}, None)), (load_embedder, sys.argv[1:])):\n"
        "    try: step(*given)\n"
        "    except UserError as error: print(error)\n"
    )
    command = [sys.executable, str(tmp_path / "hidden.py"), str(tmp_path / "model.keras")]
    environment = {"PYTHONPATH": str(Path(__file__).parents[2]), "PATH": ""}
    done = subprocess.run(command, env=environment, check=True, capture_output=True, text=True)
    lines = done.stdout.splitlines()
    assert len(lines) == 2
    assert all("keras-hub is not installed; pip install 'cbir-tf[kerashub]'" in i for i in lines)
