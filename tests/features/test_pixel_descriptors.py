"""Histograms and gradients are those of a loop over the pixels, and of other implementations."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from PIL import Image

from cbir_tf.features.pixel_descriptors import (
    color_histogram,
    gray,
    gray_histogram,
    hog,
    hog_size,
    unit,
)

pictures = arrays(np.uint8, st.tuples(st.just(2), st.integers(1, 6), st.integers(1, 6), st.just(3)))


@given(pictures)
def test_brightness_is_pillows(pixels):
    for ours, picture in zip(gray(pixels), pixels, strict=True):
        assert np.array_equal(ours, np.asarray(Image.fromarray(picture).convert("L")))


@given(pictures, st.integers(2, 256))
def test_a_gray_histogram_counts_pixel_by_pixel(pixels, bins):
    images = gray(pixels)
    for found, image in zip(gray_histogram(images, bins), images, strict=True):
        counts = [0] * bins
        for value in image.ravel().tolist():
            counts[math.floor(value / 256 * bins)] += 1
        expected = [math.sqrt(count / image.size) for count in counts]
        np.testing.assert_allclose(found, expected, atol=1e-12)


@given(pictures, st.integers(2, 8))
def test_a_colour_histogram_counts_pixel_by_pixel(pixels, bins):
    for joint, alone, picture in zip(
        color_histogram(pixels, bins),
        color_histogram(pixels, bins, joint=False),
        pixels,
        strict=True,
    ):
        together, apart = np.zeros((bins, bins, bins)), np.zeros((3, bins))
        colours = picture.reshape(-1, 3).tolist()
        for colour in colours:
            places = [math.floor(value / 256 * bins) for value in colour]
            together[tuple(places)] += 1
            for channel, place in enumerate(places):
                apart[channel, place] += 1
        np.testing.assert_allclose(joint, np.sqrt(together / len(colours)).ravel(), atol=1e-12)
        np.testing.assert_allclose(alone, np.sqrt(apart / len(colours) / 3).ravel(), atol=1e-12)
        assert np.linalg.norm(joint) == pytest.approx(1)
        assert np.linalg.norm(alone) == pytest.approx(1)


def naive_hog(image: np.ndarray) -> list[float]:
    """Written from the definition, one pixel, cell and block after the other."""
    side = len(image)
    cells = np.zeros((side // 8, side // 8, 9))
    for y in range(side):
        for x in range(side):
            down = float(image[y + 1, x]) - float(image[y - 1, x]) if 0 < y < side - 1 else 0.0
            across = float(image[y, x + 1]) - float(image[y, x - 1]) if 0 < x < side - 1 else 0.0
            degrees = math.degrees(math.atan2(down, across)) % 180
            cells[y // 8, x // 8, int(degrees // 20) % 9] += math.hypot(down, across) / 64
    vector: list[float] = []
    for y in range(side // 8 - 1):
        for x in range(side // 8 - 1):
            block = [float(v) for v in cells[y : y + 2, x : x + 2].ravel()]
            block = [v / math.sqrt(sum(w * w for w in block) + 1e-10) for v in block]
            block = [min(v, 0.2) for v in block]
            vector += [v / math.sqrt(sum(w * w for w in block) + 1e-10) for v in block]
    length = math.sqrt(sum(v * v for v in vector))
    return [v / length if length else v for v in vector]


@pytest.mark.parametrize("side", [16, 32])
def test_hog_is_that_of_a_loop(side):
    random = np.random.default_rng(side)
    images = random.integers(0, 256, (2, side, side), dtype=np.uint8)
    images[1, :, : side // 2] = 200
    found = hog(images, side)
    assert found.shape == (2, hog_size(side))
    for ours, image in zip(found, images, strict=True):
        np.testing.assert_allclose(ours, naive_hog(image), atol=1e-9)


def test_hog_is_scikit_images():
    """The first numbers of skimage.feature.hog of scikit-image 0.26.0 (9 orientations, cells of 8
    x 8, blocks of 2 x 2, L2-Hys), the whole scaled to length 1."""
    row, column = np.indices((32, 32))
    image = ((row * 7 + column * 13 + row * column * 3) % 256).astype(np.uint8)
    recorded = [0.020491, 0.07664, 0.102415, 0.003501, 0.00532, 0, 0, 0, 0.021523]
    recorded += [0.011291, 0.072842, 0.107072, 0.078599, 0, 0.094226, 0, 0, 0]
    found = hog(image[np.newaxis])
    assert found.shape == (1, 324)
    np.testing.assert_allclose(found[0, :18], recorded, atol=1e-6)


def test_hog_has_one_size_for_all_images_and_is_zero_for_an_even_one():
    images = np.full((1, 50, 70), 99, np.uint8)
    assert hog(images, 64).shape == (1, 1764)
    assert not hog(images).any()


def test_zero_has_no_direction():
    assert unit(np.array([[0.0, 0.0], [3.0, 4.0]])).tolist() == [[0.0, 0.0], [0.6, 0.8]]
