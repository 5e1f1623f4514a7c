"""The Deep Ranking network beside a naive one, in NumPy from the pixels to the joined vector."""

from __future__ import annotations

import keras
import numpy as np
import pytest

from cbir_tf.config import model as config_model
from cbir_tf.errors import UserError
from cbir_tf.losses import TripletSemiHardLoss
from cbir_tf.models import build_embedder, load_embedder
from cbir_tf.models.backbones import build_backbone

MEAN = np.float32([103.939, 116.779, 123.68])  # blue, green, red
SMALL = {"width": 16}


@pytest.fixture(scope="module")
def model() -> keras.Model:
    return build_backbone("deep_ranking", SMALL, None)


@pytest.fixture(scope="module")
def vgg16_file(tmp_path_factory) -> str:
    path = tmp_path_factory.mktemp("vgg16") / "vgg16.weights.h5"
    build_backbone("vgg16", {}, None).save_weights(path)
    return str(path)


def embedder_config(**changes: object) -> config_model.Model:
    given = {"weights": None, "options": SMALL, "embedding_size": 8}
    return config_model.Model(backbone="deep_ranking", **(given | changes))


def windows(map_: np.ndarray, size: int, stride: int, fill: float) -> np.ndarray:
    """(H, W, C) -> (rows, columns, C, size, size) with TensorFlow's "same" padding."""
    pads = []
    for side in map_.shape[:2]:
        missing = max((-(-side // stride) - 1) * stride + size - side, 0)
        pads.append((missing // 2, missing - missing // 2))
    padded = np.pad(map_, (*pads, (0, 0)), constant_values=fill)
    every = np.lib.stride_tricks.sliding_window_view(padded, (size, size), axis=(0, 1))
    return every[::stride, ::stride]


def unit(vector: np.ndarray) -> np.ndarray:
    return vector / np.linalg.norm(vector)


def naive_shallow(pixels: np.ndarray, model: keras.Model, subsampling: int, pool: int, stride: int):
    """One shallow network's 1,536 numbers for one image (H, W, 3), in float64."""
    smaller = np.nanmean(windows(pixels, subsampling, subsampling, np.nan), axis=(3, 4))
    kernel, bias = map(np.array, model.get_layer(f"shallow{subsampling}_conv").weights)
    patches = windows(smaller / 128, 8, 4, 0)
    convolved = np.maximum(np.einsum("xycij,ijcf->xyf", patches, kernel) + bias, 0)
    pooled = windows(convolved, pool, stride, -np.inf).max(axis=(3, 4))
    assert pooled.shape == (4, 4, 96)
    return smaller.shape, unit(pooled.ravel())


@pytest.mark.parametrize(("side", "sides"), [(225, (57, 29)), (224, (56, 28))])
def test_each_branch_is_what_a_naive_network_gives(model, side, sides):
    """225 to 57 and 29, and 4 x 4 x 96 from either, are the sizes of the paper's figure 3."""
    rng = np.random.default_rng(0)
    for scale in (4, 8):  # else zero
        bias = model.get_layer(f"shallow{scale}_conv").bias
        bias.assign(rng.normal(size=bias.shape))
    image = rng.integers(0, 256, (1, side, side, 3), dtype=np.uint8)
    pixels = image[..., ::-1] - MEAN
    vgg16 = keras.applications.VGG16(
        include_top=False, weights=None, pooling="avg", input_shape=(side, side, 3)
    )
    ours = [each for each in model.layers if each.name.startswith("block") and each.weights]
    vgg16.set_weights([array for layer in ours for array in layer.get_weights()])
    deep = np.asarray(vgg16(pixels))[0]
    for name in ("fc1", "fc2"):
        kernel, bias = map(np.array, model.get_layer(name).weights)
        deep = np.maximum(deep @ kernel + bias, 0)
    size4, shallow4 = naive_shallow(pixels[0], model, 4, 3, 4)
    size8, shallow8 = naive_shallow(pixels[0], model, 8, 7, 2)
    assert (size4, size8) == ((sides[0], sides[0], 3), (sides[1], sides[1], 3))
    vector = np.asarray(model(pixels))[0, 0, 0]
    assert vector.shape == (16 + 1536 + 1536,)
    for found, expected in zip(
        np.split(vector, [16, 16 + 1536]), (unit(deep), shallow4, shallow8), strict=True
    ):
        np.testing.assert_allclose(found, expected, atol=2e-5)
        np.testing.assert_allclose(np.linalg.norm(found), 1, atol=1e-5)


def test_detail_finer_than_the_sub_sampling_reaches_the_deep_network_alone(model):
    """The full image, fed to all three, would change all three."""
    image = np.random.default_rng(0).normal(0, 50, (1, 64, 64, 3)).astype(np.float32)
    checks = np.indices((64, 64)).sum(axis=0) % 2 * 2 - 1  # their mean over 4 x 4 pixels is 0
    plain, detailed = (
        np.asarray(model(each))[0, 0, 0] for each in (image, image + 40 * checks[..., None])
    )
    np.testing.assert_allclose(plain[16:], detailed[16:], atol=1e-5)
    assert np.abs(plain[:16] - detailed[:16]).max() > 1e-3


@pytest.mark.parametrize("size", [(64, 64), (96, 160), (230, 240)])
def test_images_of_any_size_give_vectors_of_one_size(model, size):
    vectors = np.asarray(model(np.random.default_rng(0).normal(0, 50, (2, *size, 3))))
    assert vectors.shape == (2, 1, 1, 16 + 2 * 1536)
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=-1), np.sqrt(3), rtol=1e-5)
    assert (vectors[0] != vectors[1]).any()


def test_a_file_of_vgg16_fills_the_deep_network_and_a_run_all_three(vgg16_file, tmp_path):
    vgg16 = build_backbone("vgg16", {}, vgg16_file)
    embedder = build_embedder(embedder_config(weights=vgg16_file))
    backbone = embedder.get_layer("backbone")
    for layer in vgg16.layers[1:]:
        for one, other in zip(layer.weights, backbone.get_layer(layer.name).weights, strict=True):
            np.testing.assert_array_equal(one, other)
    embedder.save(tmp_path / "model.keras")
    again = build_backbone("deep_ranking", SMALL, str(tmp_path / "model.keras"))
    for one, other in zip(again.weights, backbone.weights, strict=True):
        np.testing.assert_array_equal(one, other)


def test_another_network_s_weights_are_refused(tmp_path):
    path = tmp_path / "small.weights.h5"
    build_backbone("small_cnn", {"width": 8}, None).save_weights(path)
    with pytest.raises(UserError, match=r"layer 'block1_conv1': expected .* are these the weights"):
        build_backbone("deep_ranking", SMALL, str(path))


@pytest.mark.parametrize("option", [{"width": 0}, {"dropout": 1.5}])
def test_impossible_options_are_refused(option):
    with pytest.raises(UserError, match="deep_ranking cannot be built with"):
        build_backbone("deep_ranking", option, None)


def test_a_triplet_step_trains_the_configured_layers_and_survives_saving(vgg16_file, tmp_path):
    embedder = build_embedder(embedder_config(weights=vgg16_file, trainable="fc1"))
    trained = {
        f"{layer}/{kind}"
        for layer in ("fc1", "fc2", "shallow4_conv", "shallow8_conv", "embedding")
        for kind in ("kernel", "bias")
    }
    assert {each.path for each in embedder.trainable_variables} == trained
    images = np.random.default_rng(0).integers(0, 256, (8, 64, 64, 3), dtype=np.uint8)
    before = {each.path: np.array(each) for each in embedder.variables}
    embedder.compile(keras.optimizers.SGD(0.1), TripletSemiHardLoss(margin=0.5))
    loss = embedder.train_on_batch(images, np.arange(8) % 2)
    assert 0 < loss < 2
    after = {each.path: np.array(each) for each in embedder.variables}
    changed = {path for path, value in after.items() if (value != before[path]).any()}
    assert {path for path in changed if "seed" not in path} == trained
    embedder.save(tmp_path / "model.keras")
    again = load_embedder(tmp_path / "model.keras")
    vectors = embedder.predict_on_batch(images)
    assert vectors.shape == (8, 8)
    assert np.array_equal(again.predict_on_batch(images), vectors)
