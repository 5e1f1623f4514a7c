"""Visual words: weights and sums agree with loops from the papers; fitting is deterministic."""

from __future__ import annotations

import math
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cbir_tf.config.descriptors import VisualWords
from cbir_tf.errors import UserError
from cbir_tf.features import visual_words
from cbir_tf.features.visual_words import (
    Vocabulary,
    fit_vocabulary,
    inverse_document_frequency,
    local_descriptors,
    sample_descriptors,
    vlad,
)

FLAT = np.full((32, 32), 120, np.uint8)


def noise(count: int, side: int = 32) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (count, side, side), dtype=np.uint8)


def fit(config: VisualWords, images: np.ndarray, seed: int = 0):
    return fit_vocabulary(config, lambda purpose: iter(images), len(images), seed)


def test_a_grid_covers_the_image_with_patches():
    assert local_descriptors(noise(1)[0], grid=8).shape == (16, 128)
    assert local_descriptors(noise(1)[0], grid=4).shape == (64, 128)
    wide = np.random.default_rng(0).integers(0, 256, (16, 32), dtype=np.uint8)
    assert local_descriptors(wide, grid=8).shape == (8, 128)


def test_descriptors_are_square_roots_of_shares():
    found = local_descriptors(noise(1)[0], grid=8)
    np.testing.assert_allclose((found**2).sum(axis=1), 1, atol=1e-5)


@pytest.mark.parametrize("grid", [8, None])
def test_an_even_image_has_no_descriptors(grid):
    assert local_descriptors(FLAT, grid).shape == (0, 128)


def test_a_patch_of_one_brightness_is_left_out():
    half = noise(1, 64)[0].copy()
    half[:, :40] = 120
    assert 0 < len(local_descriptors(half, grid=8)) < 64


@given(st.lists(st.lists(st.integers(0, 3), min_size=4, max_size=4), min_size=1, max_size=6))
def test_rarity_is_the_logarithm_of_images_by_images_with_the_word(counts):
    found = inverse_document_frequency(counts, 4)
    for word in range(4):
        having = len([image for image in counts if image[word]])
        assert found[word] == pytest.approx(math.log(len(counts) / max(having, 1)), abs=1e-6)


def tiny(seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Nine descriptors of 128 numbers, and three words."""
    random = np.random.default_rng(seed)
    shapes = ((9, 128), (3, 128))
    return tuple(random.random(shape).astype(np.float32) for shape in shapes)  # type: ignore[return-value]


def naive_nearest(descriptors: np.ndarray, words: np.ndarray) -> list[int]:
    return [
        min(range(len(words)), key=lambda word: float(((one - words[word]) ** 2).sum()))
        for one in descriptors.astype(np.float64)
    ]


def test_counts_times_rarity():
    descriptors, words = tiny()
    rarity = np.array([0.5, 2.0, 1.0], np.float32)
    nearest = naive_nearest(descriptors, words)
    counts = [nearest.count(word) for word in range(3)]
    weighted = [count * float(rare) for count, rare in zip(counts, rarity, strict=True)]
    for weighting, expected in (("plain", counts), ("tf_idf", weighted)):
        vocabulary = Vocabulary(words, rarity if weighting == "tf_idf" else np.ones(3, np.float32))
        length = math.sqrt(sum(value**2 for value in expected))
        np.testing.assert_allclose(
            vocabulary.encode(descriptors, weighting),
            [value / length for value in expected],
            atol=1e-6,
        )


def test_vlad_is_that_of_a_loop():
    descriptors, words = tiny(1)
    nearest = naive_nearest(descriptors, words)
    blocks = []
    for word in range(3):
        total = [0.0] * 128
        for one, its_word in zip(descriptors, nearest, strict=True):
            if its_word == word:
                for place in range(128):
                    total[place] += float(one[place]) - float(words[word, place])
        powered = [math.copysign(math.sqrt(abs(value)), value) for value in total]
        length = math.sqrt(sum(value**2 for value in powered))
        blocks += [value / length if length else 0.0 for value in powered]
    whole = math.sqrt(sum(value**2 for value in blocks))
    found = Vocabulary(words, np.ones(3, np.float32)).encode(descriptors, "vlad")
    np.testing.assert_allclose(found, [value / whole for value in blocks], atol=1e-5)
    assert np.array_equal(found, vlad(descriptors, np.array(nearest), words))


@pytest.mark.parametrize(("weighting", "size"), [("plain", 3), ("tf_idf", 3), ("vlad", 384)])
def test_nothing_gives_the_zero_vector(weighting, size):
    vocabulary = Vocabulary(tiny()[1], np.ones(3, np.float32))
    assert vocabulary.encode(np.empty((0, 128), np.float32), weighting).tolist() == [0.0] * size


def test_the_lowest_davies_bouldin_index_decides_the_size_and_all_are_reported():
    config = VisualWords(words=(2, 4, 8), weighting="plain")
    vocabulary, scores = fit(config, noise(6))
    assert list(scores) == ["2", "4", "8"]
    assert len(vocabulary.words) == min((2, 4, 8), key=lambda size: scores[str(size)])
    assert vocabulary.rarity.tolist() == [1.0] * len(vocabulary.words)


def test_the_same_images_and_seed_give_the_same_words():
    config = VisualWords(words=(6,), grid=4)
    first, again, other = (fit(config, noise(6), seed)[0] for seed in (0, 0, 1))
    assert np.array_equal(first.words, again.words)
    assert np.array_equal(first.rarity, again.rarity)
    assert not np.array_equal(first.words, other.words)


def test_rarity_is_fitted_to_the_training_images():
    images = noise(5)
    vocabulary, _ = fit(VisualWords(words=(8,)), images)
    counts = [vocabulary.counts(local_descriptors(image, 8)) for image in images]
    assert np.array_equal(vocabulary.rarity, inverse_document_frequency(counts, 8))


def test_a_sample_takes_of_every_image_no_more_than_its_part():
    described = [np.full((count, 128), count, np.float32) for count in (3, 50, 100)]
    sample = sample_descriptors(described, 3, seed=0, size=30)
    values, counts = np.unique(sample[:, 0], return_counts=True)
    assert dict(zip(values.tolist(), counts.tolist(), strict=True)) == {3: 3, 50: 10, 100: 10}


def test_too_few_keypoints_are_a_one_line_error():
    with pytest.raises(UserError, match="2 training images have 32 keypoints, too few for 400"):
        fit(VisualWords(), noise(2))
    with pytest.raises(UserError, match="have 0 keypoints"):
        fit(VisualWords(), np.stack([FLAT, FLAT]))


def test_identical_keypoints_are_a_one_line_error():
    stripes = np.tile(np.array([0, 0, 0, 0, 255, 255, 255, 255], np.uint8), (64, 8))
    inner = local_descriptors(stripes, 8).reshape(8, 8, 128)[3:5, 3:5].reshape(-1, 128)
    with pytest.raises(UserError, match="all alike"):
        visual_words._cluster(np.repeat(inner[:1], 50, axis=0), 2, 0)


def test_without_opencv_the_error_names_the_package_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "cv2", None)
    with pytest.raises(UserError, match=r"pip install 'cbir-tf\[opencv\]'"):
        local_descriptors(FLAT, 8)
