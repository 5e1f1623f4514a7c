"""Descriptors joined: each part in its place with its weight, saved and read whole."""

from __future__ import annotations

import sys

import numpy as np
import pytest

from cbir_tf.config import Config
from cbir_tf.errors import UserError
from cbir_tf.features.descriptors import Descriptors, check_installed
from cbir_tf.features.pixel_descriptors import color_histogram, gray, gray_histogram, hog
from cbir_tf.features.runtime import check_model, is_exported, open_encoder
from cbir_tf.features.visual_words import Vocabulary, local_descriptors

SIZE = (24, 40)


def configured(*descriptors):
    return Config.check({"data": {"source": "digits"}, "descriptors": descriptors}).descriptors


@pytest.fixture
def all_four() -> Descriptors:
    words = np.random.default_rng(1).random((5, 128)).astype(np.float32)
    rarity = np.linspace(0.5, 2, 5, dtype=np.float32)
    config = configured(
        {"name": "visual_words", "weight": 2},
        {"name": "hog", "weight": 0.5},
        {"name": "gray_histogram", "bins": 16},
        "color_histogram",
    )
    return Descriptors(config, {0: Vocabulary(words, rarity)})


def pixels(count: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (count, *SIZE, 3), dtype=np.uint8)


def test_each_part_is_its_descriptor_times_its_weight(all_four):
    batch = pixels(3)
    found = all_four(batch)
    assert all_four.sizes == (5, 324, 16, 512)
    assert (found.dtype, found.shape) == (np.float32, (3, 857))
    words = all_four.vocabularies[0]
    expected = [
        np.array([2 * words.encode(local_descriptors(each, 8), "tf_idf") for each in gray(batch)]),
        hog(gray(batch)) * 0.5,
        gray_histogram(gray(batch), 16),
        color_histogram(batch),
    ]
    np.testing.assert_allclose(found, np.hstack(expected), atol=1e-6)
    lengths = [np.linalg.norm(part, axis=1) for part in np.split(found, [5, 329, 345], axis=1)]
    np.testing.assert_allclose(lengths, np.array([[2], [0.5], [1], [1]]) * np.ones(3), atol=1e-5)


def test_an_image_is_described_alike_alone_and_in_a_batch(all_four):
    batch = pixels(4)
    assert np.array_equal(all_four(batch)[2:3], all_four(batch[2:3]))


def test_a_gray_image_and_one_without_keypoints_are_described(all_four):
    flat = np.full((1, *SIZE, 3), 90, np.uint8)
    vector = all_four(flat)[0]
    assert not vector[:329].any()
    assert vector[329:].sum() == pytest.approx(2)  # one brightness, one colour
    assert all_four(np.empty((0, *SIZE, 3), np.uint8)).shape == (0, 857)


def test_saved_descriptors_load_and_save_to_the_same_bytes(all_four, tmp_path):
    path = tmp_path / "model.npz"
    all_four.save(path)
    assert is_exported(path)
    assert np.array_equal(open_encoder(path, SIZE)(pixels(2)), all_four(pixels(2)))
    before = path.read_bytes()
    Descriptors.load(path).save(path)
    assert path.read_bytes() == before
    assert [each.name for each in tmp_path.iterdir()] == ["model.npz"]


def test_a_file_truncated_anywhere_is_a_one_line_error(all_four, tmp_path):
    path = tmp_path / "model.npz"
    all_four.save(path)
    whole = path.read_bytes()
    for content in (b"", b"junk", *(whole[: len(whole) * part // 7] for part in range(1, 7))):
        path.write_bytes(content)
        with pytest.raises(UserError, match=r"model\.npz: damaged .*--restart") as caught:
            check_model(path)
        assert "\n" not in str(caught.value)
    flipped = bytearray(whole)
    flipped[len(whole) // 2] ^= 255
    path.write_bytes(flipped)
    with pytest.raises(UserError, match="damaged"):
        check_model(path)
    path.unlink()
    with pytest.raises(UserError, match="missing; run cbir train"):
        check_model(path)


@pytest.mark.parametrize(
    ("name", "array"),
    [
        ("0.words", np.zeros((5, 64), np.float32)),
        ("0.words", np.full((5, 128), np.nan, np.float32)),
        ("0.rarity", np.ones(4, np.float32)),
        ("about", np.array('{"format": 1, "descriptors": ["sift"]}')),
        ("about", np.array("[1]")),
        ("about", np.array([None], object)),
    ],
)
def test_a_file_that_does_not_fit_is_damaged(all_four, tmp_path, name, array):
    path = tmp_path / "model.npz"
    all_four.save(path)
    with np.load(path) as file:
        arrays = dict(file)
    np.savez(path, **(arrays | {name: array}))
    with pytest.raises(UserError, match="damaged"):
        check_model(path)


def test_a_file_of_a_later_format_is_refused(tmp_path):
    path = tmp_path / "model.npz"
    np.savez(path, about=np.array('{"format": 9, "descriptors": []}'))
    with pytest.raises(UserError, match="of format 9, this program reads 1"):
        check_model(path)


def test_only_visual_words_need_opencv(monkeypatch, all_four, tmp_path):
    path = tmp_path / "model.npz"
    all_four.save(path)
    monkeypatch.setitem(sys.modules, "cv2", None)
    check_installed(configured("hog", "gray_histogram", "color_histogram"))
    with pytest.raises(UserError, match=r"cbir-tf\[opencv\]"):
        open_encoder(path, SIZE)
