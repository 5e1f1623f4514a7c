"""From an ImageSet to batches: the decoder's own pixels, resumable, never stopped by a file."""

from __future__ import annotations

import io
import logging
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from cbir_tf.config.data import Data
from cbir_tf.data.batches import inference_batches, training_batches
from cbir_tf.data.decode import decode_image
from cbir_tf.data.sampling import epoch_batches, steps_per_epoch
from cbir_tf.errors import UserError
from cbir_tf.types import ImageSet

CLASSES, EACH = 4, 5


def content(number: int) -> bytes:
    """A JPEG that is like no other."""
    pixels = np.random.default_rng(number).integers(0, 256, (20, 30, 3), np.uint8)
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "JPEG")
    return stream.getvalue()


@pytest.fixture
def images(tmp_path: Path) -> ImageSet:
    """20 files of 4 classes; every other source is a path, the rest is bytes."""
    count = CLASSES * EACH
    sources: list[Path | bytes] = []
    for number in range(count):
        path = tmp_path / f"{number}.jpg"
        path.write_bytes(content(number))
        sources.append(path if number % 2 == 0 else content(number))
    return ImageSet(
        [f"image {number}" for number in range(count)],
        tuple(sources),
        np.arange(count) % CLASSES,
        ["train"] * count,
        tuple("abcd"),
    )


def settings(**options: object) -> Data:
    batch = options.pop("batch", {"classes": 2, "images_per_class": 3, "size": 6})
    return Data(path=Path(), image_size=(12, 16), batch=batch, **options)


def pixels_of(images: ImageSet, data: Data, positions: np.ndarray) -> np.ndarray:
    return np.stack(
        [decode_image(images.sources[each], data.image_size, data.resize) for each in positions]
    )


def read(dataset: tf.data.Dataset) -> list[tuple[np.ndarray, np.ndarray]]:
    return [(pixels.numpy(), others.numpy()) for pixels, others in dataset]


def same(one: list[tuple[np.ndarray, ...]], other: list[tuple[np.ndarray, ...]]) -> bool:
    return len(one) == len(other) and all(
        np.array_equal(left, right)
        for pair, its_pair in zip(one, other, strict=True)
        for left, right in zip(pair, its_pair, strict=True)
    )


AUGMENTED = ["flip", {"name": "random_crop", "padding": 3}, "color_jitter", "rand_augment"]


@pytest.mark.parametrize("sampler", ["balanced", "shuffled"])
@pytest.mark.parametrize("cache", ["none", "memory"])
def test_training_batches_are_the_samplers_in_order_with_the_decoders_pixels(
    images, sampler, cache
):
    batch = {"sampler": sampler, "classes": 3, "images_per_class": 4, "size": 7}
    data = settings(batch=batch, cache=cache, resize="letterbox")
    got = read(training_batches(images, data, 9, 0, 3))
    planned = [
        positions
        for epoch in range(3)
        for positions in epoch_batches(images.labels, data.batch, 9, epoch)
    ]
    expected = [
        (pixels_of(images, data, positions), images.labels[positions]) for positions in planned
    ]
    assert same(got, expected)
    assert got[0][0].dtype == np.uint8 and got[0][1].dtype == np.int64


@pytest.mark.parametrize("cache", ["none", "memory"])
def test_inference_batches_hold_every_image_in_order_with_the_decoders_pixels(images, cache):
    data = settings(resize="crop", cache=cache)
    dataset = inference_batches(images, data, batch_size=8)
    for _ in range(2):
        batches = read(dataset)
        assert [len(positions) for _, positions in batches] == [8, 8, 4]
        positions = np.concatenate([positions for _, positions in batches])
        np.testing.assert_array_equal(positions, np.arange(20))
        pixels = np.concatenate([pixels for pixels, _ in batches])
        np.testing.assert_array_equal(pixels, pixels_of(images, data, positions))


def test_a_run_resumed_at_any_epoch_sees_the_pixels_it_would_have_seen(images):
    data = settings(augmentation=AUGMENTED)
    steps = steps_per_epoch(images.labels, data.batch)
    whole = read(training_batches(images, data, 5, 0, 4))
    assert len(whole) == 4 * steps
    assert same(whole, read(training_batches(images, data, 5, 0, 4)))
    assert same(whole[2 * steps :], read(training_batches(images, data, 5, 2, 2)))
    assert same(whole[3 * steps :], read(training_batches(images, data, 5, 3, 1)))
    assert not same(whole, read(training_batches(images, data, 6, 0, 4)))


def test_an_image_looks_different_in_every_epoch(images):
    batch = {"sampler": "shuffled", "size": 20}
    data = settings(batch=batch, augmentation=[{"name": "color_jitter", "probability": 1}])
    labels = ImageSet(images.ids, images.sources, np.arange(20), images.split, tuple("c" * 20))
    views: dict[int, set[bytes]] = {}
    for pixels, names in read(training_batches(labels, data, 0, 0, 6)):
        for each, name in zip(pixels, names, strict=True):
            views.setdefault(int(name), set()).add(each.tobytes())
    assert all(len(each) == 6 for each in views.values())


@pytest.mark.parametrize("steps", [1, 30])
def test_the_dataset_has_a_length_and_the_configured_steps(images, steps):
    dataset = training_batches(images, settings(), 0, 0, 2, steps=steps)
    assert dataset.cardinality() == 2 * steps
    assert len(read(dataset)) == 2 * steps
    assert dataset.element_spec[0].shape.as_list() == [None, 12, 16, 3]


def test_small_classes_make_smaller_batches(images):
    few = images.take(np.array([0, 4, 8, 1, 5, 2]))
    batch = {"classes": 3, "images_per_class": 3}
    labels = [sorted(each) for _, each in read(training_batches(few, settings(batch=batch), 0))]
    assert labels == [[0, 0, 0, 1, 1]]


@pytest.mark.parametrize("cache", ["none", "memory"])
def test_damaged_files_are_dropped_and_named_once(images, cache, caplog):
    images.sources[4].unlink()
    images.sources[10].write_bytes(content(10)[:300])
    data = settings(batch={"sampler": "shuffled", "size": 10}, cache=cache)
    failures: dict[str, str] = {}
    with caplog.at_level(logging.WARNING, "cbir_tf.data"):
        batches = read(training_batches(images, data, 0, 0, 3, failures=failures))
    assert set(failures) == {"image 4", "image 10"}
    assert failures["image 4"] == "no such file"
    messages = [record.getMessage() for record in caplog.records if record.name == "cbir_tf.data"]
    assert sorted(messages) == sorted(f"{name} is left out: {failures[name]}" for name in failures)
    assert [len(batches[at][1]) + len(batches[at + 1][1]) for at in (0, 2, 4)] == [18, 18, 18]
    for pixels, labels in batches:
        assert len(pixels) == len(labels)
    positions = np.concatenate([each for _, each in read(inference_batches(images, data))])
    assert positions.tolist() == [each for each in range(20) if each not in (4, 10)]


def test_a_batch_without_a_good_image_is_no_batch(images):
    for each in (0, 2, 4):
        images.sources[each].unlink()
    some = images.take(np.array([0, 2, 4, 1, 3, 5, 7]))
    data = settings(batch={"size": 3})
    batches = read(inference_batches(some, data))
    assert [positions.tolist() for _, positions in batches] == [[3, 4, 5], [6]]
    bad = training_batches(some.take(np.arange(3)), settings(batch={"sampler": "shuffled"}), 0)
    with pytest.raises(tf.errors.OpError, match=r"batch of 3 images .*no such file"):
        read(bad)


def test_mistakes_are_a_one_line_error_before_training(images):
    alone = images.take(np.arange(4))
    with pytest.raises(UserError, match="no class has two images"):
        training_batches(alone, settings(), 0)
    with pytest.raises(UserError, match="no images"):
        training_batches(alone.take(np.arange(0)), settings(batch={"sampler": "shuffled"}), 0)
    data = settings(augmentation=[{"name": "random_crop", "size": 100}])
    with pytest.raises(UserError) as caught:
        training_batches(images, data, 0)
    assert "\n" not in str(caught.value) and "larger than the padded image" in str(caught.value)
    huge = Data(path=Path(), image_size=(10**6, 10**6), cache="memory")
    with pytest.raises(UserError, match="need 60000 GB of memory"):
        training_batches(images, huge, 0)
    inference_batches(images, huge)  # caches nothing


def test_real_photos_are_read(shared_data, tmp_path):
    import tarfile

    with tarfile.open(shared_data / "clothing224.tar") as archive:
        members = [each for each in archive.getmembers() if each.name.endswith(".jpg")][::400]
        archive.extractall(tmp_path, members, filter="data")
    paths = tuple(tmp_path / each.name for each in members)
    count = len(paths)
    images = ImageSet([str(p) for p in paths], paths, [0] * count, [""] * count, ("clothes",))
    ((pixels, positions),) = read(inference_batches(images, Data(path=Path()), batch_size=64))
    assert pixels.shape == (count, 224, 224, 3) and len(positions) == count
    assert pixels.std(axis=(1, 2, 3)).min() > 5
