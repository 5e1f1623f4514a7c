"""Picture operations beside Pillow's, NumPy's and colorsys's."""

from __future__ import annotations

import colorsys

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image, ImageEnhance, ImageOps

from cbir_tf.data import pixel_ops
from cbir_tf.data.rand_augment import OPERATIONS

FACTORS = [0.0, 0.4, 1.0, 1.7]


def picture(height: int = 18, width: int = 26) -> np.ndarray:
    random = np.random.default_rng(3)
    return random.integers(20, 230, (height, width, 3)).astype(np.uint8)


def smooth(height: int, width: int) -> np.ndarray:
    """Straight slopes, which bilinear interpolation reproduces."""
    y, x = np.mgrid[:height, :width]
    return np.stack([4 * x + 20, 3 * y + 10, 2 * x + 2 * y], axis=-1).astype(np.uint8)


def close(actual: tf.Tensor, expected: object, most: float = 1) -> None:
    """Pillow cuts fractions off where we round."""
    assert actual.dtype == tf.uint8
    difference = np.abs(actual.numpy().astype(int) - np.asarray(expected).astype(int))
    assert difference.max() <= most


@pytest.mark.parametrize("factor", FACTORS)
@pytest.mark.parametrize(
    ("ours", "pillows"),
    [
        ("brightness", ImageEnhance.Brightness),
        ("contrast", ImageEnhance.Contrast),
        ("saturation", ImageEnhance.Color),
    ],
)
def test_recolor_does_what_pillow_does(ours, pillows, factor):
    image = picture()
    expected = pillows(Image.fromarray(image)).enhance(factor)
    close(pixel_ops.recolor(image, **{ours: factor}), expected, most=2)


def test_recolor_is_brightness_then_contrast_then_saturation():
    image = picture()
    values = image * 0.8
    mean_gray = (values @ pixel_ops.LUMA).mean()
    values = mean_gray + (values - mean_gray) * 1.2
    gray = (values @ pixel_ops.LUMA)[..., None]
    expected = (gray + (values - gray) * 0.5).round().clip(0, 255)
    close(pixel_ops.recolor(image, 0.8, 1.2, 0.5), expected)


def test_sharpness_does_what_pillow_does():
    image = picture()
    for factor in FACTORS:
        expected = ImageEnhance.Sharpness(Image.fromarray(image)).enhance(factor)
        close(pixel_ops.sharpness(image, factor), expected, most=2)


def test_gray_auto_contrast_equalize_do_what_pillow_does():
    for image in (picture(), smooth(40, 50), np.full((9, 9, 3), 77, np.uint8)):
        pillow = Image.fromarray(image)
        close(pixel_ops.gray(image), pillow.convert("L").convert("RGB"))
        close(pixel_ops.auto_contrast(image), ImageOps.autocontrast(pillow))
        close(pixel_ops.equalize(image), ImageOps.equalize(pillow), most=0)


def test_posterize_and_solarize_do_what_pillow_does():
    image = picture()
    for bits in range(1, 9):
        close(pixel_ops.posterize(image, bits), ImageOps.posterize(Image.fromarray(image), bits), 0)
    for threshold in (0, 100, 256):
        expected = ImageOps.solarize(Image.fromarray(image), threshold)
        close(pixel_ops.solarize(image, threshold), expected, most=0)


def test_hue_turns_the_colour_circle():
    image = picture(4, 5)
    for shift in (-0.3, 0.25):
        expected = [
            [
                255 * np.array(colorsys.hsv_to_rgb((hue + shift) % 1, saturation, value))
                for hue, saturation, value in (colorsys.rgb_to_hsv(*(rgb / 255)) for rgb in row)
            ]
            for row in image
        ]
        close(pixel_ops.hue(image, shift), np.round(expected))


@pytest.mark.parametrize("turns", [0, 1, 2, 3])
def test_quarter_turns_are_exact(turns):
    image = picture(20, 20)
    close(pixel_ops.rotate(image, 90.0 * turns), np.rot90(image, turns), most=0)


def test_rotation_does_what_pillow_does_where_both_have_the_picture():
    image = smooth(40, 50)
    expected = np.asarray(Image.fromarray(image).rotate(17, Image.Resampling.BILINEAR))
    close(pixel_ops.rotate(image, 17.0)[14:26, 16:34], expected[14:26, 16:34])


def test_what_comes_from_outside_is_a_reflection():
    image = picture(10, 12)
    mirrored = np.concatenate([image[:, :3][:, ::-1], image[:, :-3]], axis=1)
    close(pixel_ops.translate(image, -3.0, 0.0), mirrored, most=0)
    turned = pixel_ops.rotate(np.full((21, 21, 3), 200, np.uint8), 45.0)
    assert (turned.numpy() == 200).all()


def test_shear_slants_about_the_centre():
    image = smooth(21, 31)
    sheared = pixel_ops.shear(image, 0.5, 0.0).numpy()
    np.testing.assert_array_equal(sheared[10], image[10])
    np.testing.assert_array_equal(sheared[12, 5:25], image[12, 6:26])
    np.testing.assert_array_equal(sheared[6, 5:25], image[6, 3:23])


@pytest.mark.parametrize(("top", "left"), [(0, 0), (-4, 3), (5, -6), (2, 1)])
def test_a_window_beyond_the_edge_is_a_window_of_numpys_reflected_padding(top, left):
    image = picture(10, 12)
    padded = np.pad(image, ((6, 6), (6, 6), (0, 0)), mode="reflect")
    expected = padded[top + 6 : top + 15, left + 6 : left + 17]
    np.testing.assert_array_equal(pixel_ops.window(image, top, left, (9, 11)), expected)


def test_scaling_up_does_what_pillow_does():
    image = picture(10, 12)
    expected = Image.fromarray(image).resize((30, 21), Image.Resampling.BILINEAR)
    close(pixel_ops.scale_to(image, 21, 30), expected)


@pytest.mark.parametrize("name", sorted(set(OPERATIONS) - {"auto_contrast", "equalize"}))
def test_a_rand_augment_operation_of_no_strength_changes_nothing(name):
    image = tf.constant(picture())
    np.testing.assert_array_equal(OPERATIONS[name](image, tf.constant(0.0)), image)


@pytest.mark.parametrize("name", sorted(set(OPERATIONS) - {"identity"}))
def test_a_rand_augment_operation_of_full_strength_changes_the_picture(name):
    image = tf.constant(picture())
    changed = OPERATIONS[name](image, tf.constant(1.0))
    assert changed.shape == image.shape and changed.dtype == tf.uint8
    assert (changed.numpy() != image.numpy()).mean() > 0.2
