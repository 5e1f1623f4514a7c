"""Test-time augmentation: one vector for several views, and a store that knows of it."""

from __future__ import annotations

import io
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from cbir_tf import Config, Run
from cbir_tf.config.data import Data
from cbir_tf.config.model import Model
from cbir_tf.config.search import Search
from cbir_tf.data.decode import decode_image
from cbir_tf.features.runtime import is_exported
from cbir_tf.features.views import averaging, encoder_fingerprint, open_run_encoder, viewed
from cbir_tf.models import build_embedder, load_embedder

NONE, FLIP, CROPS = (Search(test_time_augmentation=each) for each in ("none", "flip", "crops"))
SCALES = Search(test_time_augmentation="flip", test_time_scales=(0.5, 1, 1.5))
WEIGHTS = np.random.default_rng(1).normal(size=(6 * 6 * 3, 5))


def pixels(count: int, height: int = 6, width: int = 6) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (count, height, width, 3), dtype=np.uint8)


def project(images: np.ndarray) -> np.ndarray:
    """An encoder that no turning leaves alone."""
    assert images.flags.c_contiguous and images.dtype == np.uint8
    return (images.reshape(len(images), -1) @ WEIGHTS).astype(np.float32)


def pictures_of(image: np.ndarray, augmentation: str) -> list[np.ndarray]:
    """The views, made by Pillow."""
    picture = Image.fromarray(image)
    if augmentation == "flip":
        return [image, np.asarray(picture.transpose(Image.Transpose.FLIP_LEFT_RIGHT))]
    return [np.asarray(picture.rotate(angle, expand=True)) for angle in (0, 90, 180, 270)]


@pytest.mark.parametrize("augmentation", ["flip", "rotations"])
@pytest.mark.parametrize("normalize", [False, True])
def test_a_vector_is_the_mean_over_the_views(augmentation, normalize):
    images = pixels(3)
    found = averaging(project, Search(test_time_augmentation=augmentation), normalize)(images)
    assert found.dtype == np.float32
    for image, vector in zip(images, found, strict=True):
        views = np.stack(pictures_of(image, augmentation))
        mean = project(views).mean(axis=0)
        if normalize:
            mean /= np.linalg.norm(mean)
        np.testing.assert_allclose(vector, mean, rtol=1e-4)


@pytest.mark.parametrize(
    ("augmentation", "change"),
    [
        ("flip", lambda images: images[:, :, ::-1]),
        ("rotations", lambda images: np.rot90(images, axes=(1, 2))),
    ],
)
def test_an_image_and_its_view_have_one_vector(augmentation, change):
    images = pixels(2)
    encoder = averaging(project, Search(test_time_augmentation=augmentation), normalize=True)
    found = encoder(np.ascontiguousarray(change(images)))
    np.testing.assert_allclose(found, encoder(images), atol=1e-6)


def test_crops_and_their_mirror_images_are_views():
    joined = pixels(2, 6, 18)
    crops = [joined[:, :, left : left + 6] for left in (0, 6, 12)]
    views = [view for crop in crops for view in (crop, crop[:, :, ::-1])]
    mean = np.mean([project(np.ascontiguousarray(view)) for view in views], axis=0)
    np.testing.assert_allclose(averaging(project, CROPS, False)(joined), mean, rtol=1e-4)


@pytest.mark.parametrize("shape", [(40, 60), (60, 40), (50, 50)])
def test_crops_leave_nothing_of_a_photo_out(shape):
    height, width = shape
    photo = pixels(1, height, width)[0]
    content = io.BytesIO()
    Image.fromarray(photo).save(content, "png")
    data = viewed(Data(path=Path(), image_size=20, resize="crop"), CROPS)
    joined = decode_image(content.getvalue(), data.image_size, data.resize)
    side = min(shape)
    for number, crop in enumerate(np.split(joined, 3, axis=1)):
        top, left = number / 2 * (height - side), number / 2 * (width - side)
        box = (left, top, left + side, top + side)
        expected = Image.fromarray(photo).resize((20, 20), Image.Resampling.BILINEAR, box)
        np.testing.assert_array_equal(crop, np.asarray(expected))
    centre = decode_image(content.getvalue(), (20, 20), "crop")
    np.testing.assert_array_equal(np.split(joined, 3, axis=1)[1], centre)


def test_every_view_is_encoded_at_every_scale():
    images = pixels(2, 6, 8)

    def mean_and_size(views: np.ndarray) -> np.ndarray:
        assert views.flags.c_contiguous and views.dtype == np.uint8
        sides = np.full((len(views), 2), views.shape[1:3])
        return np.concatenate([views.mean(axis=(1, 2)), sides], axis=1).astype(np.float32)

    found = averaging(mean_and_size, SCALES, normalize=False)(images)
    for image, vector in zip(images, found, strict=True):
        views = [
            np.asarray(Image.fromarray(view).resize((width, height), Image.Resampling.BILINEAR))
            for view in (image, np.ascontiguousarray(image[:, ::-1]))
            for height, width in ((3, 4), (6, 8), (9, 12))
        ]
        expected = np.mean([mean_and_size(view[np.newaxis])[0] for view in views], axis=0)
        np.testing.assert_allclose(vector, expected, rtol=1e-5)


@pytest.mark.parametrize("runtime", ["onnxruntime", "keras"])
def test_either_runtime_takes_views_of_any_size(run, monkeypatch, runtime):
    if runtime == "keras":
        monkeypatch.setitem(sys.modules, "onnxruntime", None)
    images = pixels(2, 32, 32)
    larger = [
        np.asarray(Image.fromarray(each).resize((48, 48), Image.Resampling.BILINEAR))
        for each in images
    ]
    model = load_embedder(run.model)
    mean = model.predict_on_batch(images) + model.predict_on_batch(np.stack(larger))
    found = open_run_encoder(run, Search(test_time_scales=(1, 1.5)))(images)
    assert is_exported(run.model) == (runtime == "onnxruntime")
    expected = mean / np.linalg.norm(mean, axis=1, keepdims=True)
    np.testing.assert_allclose(found, expected, atol=1e-4)


def test_without_augmentation_the_encoder_is_itself():
    assert averaging(project, NONE, normalize=True) is project


def test_views_that_cancel_out_give_no_nan():
    encoder = averaging(lambda images: images[:, 0, :1, 0] - np.float32(2), FLIP, True)
    assert encoder(np.uint8([[[[1], [3]]]])).tolist() == [[0]]


@pytest.fixture
def run(tmp_path):
    model = {"backbone": "small_cnn", "weights": None, "embedding_size": 8}
    run = Run(
        tmp_path, Config.check({"data": {"source": "digits", "image_size": 32}} | {"model": model})
    )
    build_embedder(Model(**model)).save(run.model)
    return run


@pytest.mark.parametrize("runtime", ["onnxruntime", "keras"])
@pytest.mark.parametrize("augmentation", ["flip", "rotations"])
def test_the_encoder_of_a_run_averages_with_either_runtime(run, monkeypatch, runtime, augmentation):
    if runtime == "keras":
        monkeypatch.setitem(sys.modules, "onnxruntime", None)
    images = pixels(2, 32, 32)
    found = open_run_encoder(run, Search(test_time_augmentation=augmentation))(images)
    assert is_exported(run.model) == (runtime == "onnxruntime")
    model = load_embedder(run.model)
    for image, vector in zip(images, found, strict=True):
        views = np.stack(pictures_of(image, augmentation))
        mean = model.predict_on_batch(views).mean(axis=0)
        np.testing.assert_allclose(vector, mean / np.linalg.norm(mean), atol=1e-4)


def test_a_store_made_before_there_were_views_is_one_without(run):
    assert encoder_fingerprint(run, NONE) == encoder_fingerprint(run, FLIP).removesuffix(" flip")
    assert len(encoder_fingerprint(run, NONE)) == 64
    assert encoder_fingerprint(run, SCALES).endswith(" flip at 0.5, 1, 1.5")
