"""Augmentation: random, within its bounds, and decided by the seed alone."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from pydantic import TypeAdapter

from cbir_tf.config.data import Augmentation, Data
from cbir_tf.data import pixel_ops
from cbir_tf.data.augment import STEPS, augment
from cbir_tf.errors import UserError

MANY = 400


def picture(height: int = 12, width: int = 16) -> np.ndarray:
    return np.random.default_rng(5).integers(0, 256, (height, width, 3), np.uint8)


def steps(*given: str | dict) -> tuple[Augmentation, ...]:
    return Data(path=Path(), augmentation=given).augmentation


def many(image: np.ndarray, *given: str | dict, count: int = MANY) -> np.ndarray:
    """The image augmented with seeds (1, 0), (1, 1) ...: uint8 (count, H, W, 3)."""
    configured = steps(*given)

    @tf.function(autograph=False)
    def all_of_them(numbers: tf.Tensor) -> tf.Tensor:
        return tf.map_fn(
            lambda number: augment(tf.constant(image), configured, tf.stack([1, number])),
            numbers,
            fn_output_signature=tf.uint8,
        )

    return all_of_them(tf.range(count)).numpy()


def share(matches: list[bool]) -> float:
    return sum(matches) / len(matches)


def equal(one: np.ndarray, other: np.ndarray) -> bool:
    return np.array_equal(one, other)


EVERY_STEP = [
    "flip",
    {"name": "random_crop", "padding": 3},
    "random_resized_crop",
    {"name": "color_jitter", "hue": 0.1},
    {"name": "grayscale", "probability": 0.5},
    {"name": "rotation", "degrees": 40},
    "rand_augment",
]


def test_every_step_of_the_configuration_is_there():
    options = TypeAdapter(Augmentation).json_schema()["discriminator"]["mapping"]
    assert set(options) == set(STEPS)


@pytest.mark.parametrize("step", EVERY_STEP, ids=str)
def test_a_step_keeps_shape_and_type_varies_with_the_seed_and_not_otherwise(step):
    image = picture()
    first, again = many(image, step, count=40), many(image, step, count=40)
    assert first.shape == (40, 12, 16, 3) and first.dtype == np.uint8
    np.testing.assert_array_equal(first, again)
    assert len({each.tobytes() for each in first}) > 1
    alone = augment(tf.constant(image), steps(step), (1, 7))
    # Graph and eager arithmetic may round differently.
    assert np.abs(alone.numpy().astype(int) - first[7]).max() <= 1


def test_steps_are_applied_in_order_each_with_its_own_randomness():
    image = picture()
    twice = many(image, "flip", "flip")
    assert 0.4 < share([equal(each, image) for each in twice]) < 0.6
    no_steps = augment(tf.constant(image), (), (1, 2))
    np.testing.assert_array_equal(no_steps, image)


def test_flip_mirrors_half_of_the_time():
    image = picture()
    flipped = many(image, "flip")
    mirrored = share([equal(each, image[:, ::-1]) for each in flipped])
    assert 0.42 < mirrored < 0.58
    assert mirrored + share([equal(each, image) for each in flipped]) == 1


def test_vertical_flip_gives_all_four_views_alike():
    image = picture()
    flipped = many(image, {"name": "flip", "vertical": True})
    for view in (image, image[::-1], image[:, ::-1], image[::-1, ::-1]):
        assert 0.19 < share([equal(each, view) for each in flipped]) < 0.31


def test_random_crop_is_every_window_of_the_reflected_image():
    image = picture()
    padded = np.pad(image, ((2, 2), (2, 2), (0, 0)), mode="reflect")
    windows = {
        padded[top : top + 12, left : left + 16].tobytes() for top in range(5) for left in range(5)
    }
    crops = {each.tobytes() for each in many(image, {"name": "random_crop", "padding": 2})}
    assert crops == windows


def test_a_smaller_random_crop_is_every_window_of_that_size():
    image = picture()
    windows = {
        image[top : top + 10, left : left + 10].tobytes() for top in range(3) for left in range(7)
    }
    crops = {each.tobytes() for each in many(image, {"name": "random_crop", "size": 10})}
    assert crops == windows


@pytest.mark.parametrize(
    "step",
    [{"name": "random_crop", "padding": 12}, {"name": "random_crop", "padding": 1, "size": 15}],
)
def test_a_crop_that_does_not_fit_is_the_users_mistake(step):
    with pytest.raises(UserError, match=r"random_crop.* 1[24] x 1[68]"):
        augment(tf.constant(picture()), steps(step), (0, 0))


def test_random_resized_crop_has_the_configured_area_and_shape():
    height, width = 60, 80
    y, x = np.mgrid[:height, :width]
    ramps = np.stack([3 * x, 4 * y, 0 * x], axis=-1).astype(np.uint8)
    step = {"name": "random_resized_crop", "scale": (0.3, 0.6), "ratio": (0.8, 1.6)}
    crops = many(ramps, step).astype(float)
    # The slope of a ramp tells how much the crop was enlarged.
    crop_width = (crops[:, 30, 60, 0] - crops[:, 30, 20, 0]) / 40 / 3 * width
    crop_height = (crops[:, 45, 40, 1] - crops[:, 15, 40, 1]) / 30 / 4 * height
    area = crop_width * crop_height / (height * width)
    ratio = crop_width / crop_height
    assert 0.27 < area.min() < 0.35 and 0.55 < area.max() < 0.63
    assert 0.75 < ratio.min() < 0.85 and 1.5 < ratio.max() < 1.7
    assert abs(np.median(area) - 0.45) < 0.03
    assert abs(np.median(np.log(ratio)) - np.log(0.8 * 1.6) / 2) < 0.06


def test_a_resized_crop_never_leaves_a_narrow_image():
    image = np.full((8, 64, 3), 90, np.uint8)
    crops = many(image, {"name": "random_resized_crop", "scale": (0.9, 1), "ratio": (0.5, 1)})
    assert (crops == 90).all()


def test_a_resized_crop_of_another_size_shows_the_same_rectangle():
    y, x = np.mgrid[:60, :80]
    image = tf.constant(np.stack([3 * x, 4 * y, 0 * x], axis=-1).astype(np.uint8))
    step = {"name": "random_resized_crop", "scale": (0.3, 0.6)}
    whole, small = (augment(image, steps(each), (3, 4)) for each in (step, step | {"size": 30}))
    assert whole.shape == image.shape and small.shape == (30, 30, 3)
    rescaled = pixel_ops.scale_to(whole, 30, 30)
    assert np.abs(small.numpy().astype(int) - rescaled.numpy()).max() <= 3


def test_color_jitter_changes_brightness_within_bounds():
    image = np.full((8, 8, 3), 100, np.uint8)
    step = {"name": "color_jitter", "brightness": 0.2, "contrast": 0, "saturation": 0}
    values = many(image, step)[:, 0, 0, 0]
    assert 80 <= values.min() < 84 and 116 < values.max() <= 120
    assert abs(values.mean() - 100) < 2


def test_color_jitter_and_grayscale_have_the_configured_probability():
    image = picture()
    jittered = many(image, {"name": "color_jitter", "probability": 0.3})
    assert 0.23 < share([not equal(each, image) for each in jittered]) < 0.37
    grayed = many(image, {"name": "grayscale", "probability": 0.2})
    gray = [equal(each[..., :1].repeat(3, axis=-1), each) for each in grayed]
    assert 0.14 < share(gray) < 0.26
    assert share(gray) + share([equal(each, image) for each in grayed]) == 1
    for probability, expected in ((0.0, 0.0), (1.0, 1.0)):
        step = {"name": "grayscale", "probability": probability}
        assert share([not equal(each, image) for each in many(image, step, count=50)]) == expected


def test_rotation_turns_both_ways_up_to_the_angle():
    height = width = 41
    y, x = np.mgrid[:height, :width]
    ramp = np.stack([4 * x, 4 * y, 0 * x], axis=-1).astype(np.uint8)
    turned = many(ramp, {"name": "rotation", "degrees": 30}).astype(float)
    across = (turned[:, 20, 28, 0] - turned[:, 20, 12, 0]) / 64
    down = (turned[:, 20, 28, 1] - turned[:, 20, 12, 1]) / 64
    degrees = np.degrees(np.arctan2(down, across))
    assert -31 < degrees.min() < -28 and 28 < degrees.max() < 31
    assert abs(np.mean(degrees)) < 3


def test_rand_augment_of_no_magnitude_does_only_what_has_no_strength():
    image = picture(20, 30) // 2 + 40
    step = {"name": "rand_augment", "operations": 1, "magnitude": 0.0}
    augmented = many(image, step)
    assert abs(share([equal(each, image) for each in augmented]) - 12 / 14) < 0.06
    assert len({each.tobytes() for each in augmented}) == 3
