"""Looking at every image once, and the table of what was found."""

from __future__ import annotations

import csv
import hashlib
import io
import struct
import tarfile
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from cbir_tf.data.inspection import (
    Inspection,
    difference_hash,
    inspect_images,
    read_image_table,
    recorded_images,
    write_image_table,
)
from cbir_tf.data.sources import images_in_folder
from cbir_tf.errors import UserError
from cbir_tf.types import UNLABELLED, ImageSet


def picture(seed: int, size: tuple[int, int] = (64, 48)) -> Image.Image:
    """A smooth random picture, so that compression keeps it."""
    coarse = np.random.default_rng(seed).integers(0, 256, (6, 8, 3), dtype=np.uint8)
    return Image.fromarray(coarse).resize(size, Image.Resampling.BICUBIC)


def encoded(image: Image.Image, file_format: str = "PNG", **options) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, format=file_format, **options)
    return buffer.getvalue()


def huge_png() -> bytes:
    """A PNG of a few bytes whose header declares 30,000 x 30,000 pixels."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        body = kind + content
        return struct.pack(">I", len(content)) + body + struct.pack(">I", zlib.crc32(body))

    header = struct.pack(">IIBBBBB", 30_000, 30_000, 8, 2, 0, 0, 0)
    pixels = zlib.compress(bytes(1000))
    signature = b"\x89PNG\r\n\x1a\n"
    return signature + chunk(b"IHDR", header) + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")


def image_set(sources: dict[str, Path | bytes], split: str = "train") -> ImageSet:
    labels = np.arange(len(sources)) % 2
    return ImageSet(
        np.array(list(sources)),
        tuple(sources.values()),
        labels,
        np.full(len(sources), split),
        ("cat", "dog, large"),
    )


@pytest.fixture
def damaged(tmp_path) -> dict[str, Path]:
    """One file of every kind that cannot be decoded."""
    jpeg = encoded(picture(0), "JPEG")
    contents = {
        "empty.jpg": b"",
        "truncated.jpg": jpeg[: len(jpeg) // 2],
        "truncated.png": encoded(picture(0))[:200],
        "text.jpg": b"this is no picture",
        "header only.png": b"\x89PNG\r\n\x1a\n",
        "huge.png": huge_png(),
    }
    paths = {name: tmp_path / name for name in contents}
    for name, path in paths.items():
        path.write_bytes(contents[name])
    (tmp_path / "folder.png").mkdir()
    return paths | {"missing.png": tmp_path / "missing.png", "folder.png": tmp_path / "folder.png"}


def test_damaged_files_are_left_out_and_listed_with_the_reason(damaged, tmp_path, caplog):
    mislabelled = tmp_path / "mislabelled.jpg"
    mislabelled.write_bytes(encoded(picture(1)))
    good = {"1.png": encoded(picture(2)), "mislabelled.jpg": mislabelled}
    inspection = inspect_images(image_set({"0.png": encoded(picture(3)), **damaged, **good}))
    assert inspection.images.ids.tolist() == ["0.png", *good]
    assert [name for name, _ in inspection.damaged] == list(damaged)
    reasons = dict(inspection.damaged)
    assert "empty" in reasons["empty.jpg"]
    assert "no such file" in reasons["missing.png"].lower()
    assert "megapixels" in reasons["huge.png"]
    assert all(reason and "\n" not in reason for reason in reasons.values())
    assert f"{len(damaged)} of {len(damaged) + 3} images cannot be decoded" in caplog.text
    assert "huge.png" in caplog.text


def test_digests_and_hashes_belong_to_their_images(tmp_path):
    sources = {f"{number}.png": encoded(picture(number)) for number in range(20)}
    sources["3.png"] = b"damaged"
    inspection = inspect_images(image_set(sources))
    for name, digest, words in zip(
        inspection.images.ids.tolist(), inspection.digests, inspection.hashes, strict=True
    ):
        assert digest == hashlib.sha256(sources[name]).hexdigest()
        assert (words == difference_hash(picture(int(name.split(".")[0])))).all()
    assert inspection.hashes.shape == (19, 4)
    assert inspection.hashes.dtype == np.uint64


def test_a_run_with_nothing_left_to_train_on_stops():
    images = image_set({"a": b"", "b": b"text", "c": encoded(picture(0))})
    split = np.array(["train", "train", "test"])
    images = ImageSet(images.ids, images.sources, images.labels, split, images.class_names)
    with pytest.raises(UserError, match=r"none of the training images.*first of 2 is 'a'"):
        inspect_images(images)
    with pytest.raises(UserError, match="none of the images"):
        inspect_images(image_set({"a": b"", "b": b"text"}, split=""))


def bits(words: np.ndarray) -> np.ndarray:
    return np.array([int(digit) for word in words for digit in f"{int(word):064b}"])


def test_the_hash_is_where_a_picture_gets_brighter_from_left_to_right():
    gray = np.random.default_rng(0).integers(0, 256, (16, 17), dtype=np.uint8)
    expected = [
        int(gray[row, column + 1]) - int(gray[row, column]) > 2
        for row in range(16)
        for column in range(16)
    ]
    exact = difference_hash(Image.fromarray(gray).convert("RGB"))
    assert bits(exact).tolist() == expected


def test_copies_hash_alike_and_other_pictures_do_not():
    original = picture(0, (200, 160))
    shrunk = original.resize((75, 60), Image.Resampling.LANCZOS)
    recompressed = Image.open(io.BytesIO(encoded(original, "JPEG", quality=40)))
    darker = original.point(lambda value: int(0.85 * value))

    def distance(other: Image.Image) -> int:
        return int((bits(difference_hash(original)) != bits(difference_hash(other))).sum())

    assert max(map(distance, (shrunk, recompressed, darker))) <= 12
    assert min(distance(picture(seed, (200, 160))) for seed in range(1, 20)) > 60


def test_even_and_tiny_pictures_have_an_empty_hash():
    assert not difference_hash(Image.new("RGB", (300, 200), (250, 250, 250))).any()
    assert not difference_hash(picture(0, (8, 8))).any()
    assert difference_hash(picture(0, (17, 16))).any()


def same(first: Inspection, second: Inspection) -> bool:
    return (
        first.images.ids.tolist() == second.images.ids.tolist()
        and first.images.sources == second.images.sources
        and first.images.labels.tolist() == second.images.labels.tolist()
        and first.images.split.tolist() == second.images.split.tolist()
        and first.damaged == second.damaged
        and first.digests.tolist() == second.digests.tolist()
        and first.hashes.tolist() == second.hashes.tolist()
    )


@pytest.fixture
def inspected(tmp_path) -> tuple[ImageSet, Inspection, Path]:
    """Images (a file, bytes, an unlabelled and a damaged one), their inspection and its table."""
    (tmp_path / "ä, b.png").write_bytes(encoded(picture(1)))
    sources = {
        "ä, b.png": tmp_path / "ä, b.png",
        'quo"ted': encoded(picture(2)),
        "damaged": b"no picture",
        "unlabelled": encoded(picture(3)),
    }
    images = ImageSet(
        np.array(list(sources)),
        tuple(sources.values()),
        np.array([1, 0, 1, UNLABELLED]),
        np.array(["train", "test", "train", ""]),
        ("cat", "dog, large"),
    )
    inspection = inspect_images(images)
    write_image_table(tmp_path / "images.csv", inspection)
    return images, inspection, tmp_path / "images.csv"


def test_a_table_read_back_is_the_same_inspection(inspected):
    images, inspection, path = inspected
    assert same(read_image_table(path, images), inspection)


def test_a_table_is_plain_csv_with_class_names(inspected):
    _, inspection, path = inspected
    with path.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == ["id", "path", "label", "split", "digest", "hash", "damage"]
    assert [row["label"] for row in rows] == ["dog, large", "cat", "", ""]
    assert rows[0]["path"].endswith("ä, b.png")
    assert rows[1]["path"] == ""
    assert bits(inspection.hashes[0]).tolist() == [
        int(digit) for digit in f"{int(rows[0]['hash'], 16):0256b}"
    ]
    assert rows[3]["id"] == "damaged"
    assert rows[3]["damage"] == inspection.damaged[0][1]


def test_a_table_of_other_data_is_refused(inspected):
    images, _, path = inspected

    def changed(**changes) -> ImageSet:
        values = {name: getattr(images, name) for name in images.__dataclass_fields__}
        return ImageSet(**(values | changes))

    others = [
        (changed(split=np.array(["train", "train", "train", ""])), "another label or split"),
        (changed(labels=np.array([0, 0, 1, UNLABELLED])), "another label or split"),
        (
            changed(
                ids=np.array(["renamed", 'quo"ted', "damaged", "unlabelled"]),
                split=np.array(["test", "train", "train", ""]),
            ),
            "'renamed' was added since",
        ),
        (images.take(np.array([0, 2, 3])), "was removed since"),
    ]
    for other, message in others:
        with pytest.raises(UserError, match=message):
            read_image_table(path, other)
    without_the_damaged = images.take(np.array([0, 1, 3]))
    assert len(read_image_table(path, without_the_damaged).images) == 3


def test_images_of_a_run_keep_their_splits_when_others_are_added_or_removed(inspected, caplog):
    images, inspection, path = inspected
    before = inspection.images
    values = {name: getattr(images, name) for name in images.__dataclass_fields__}
    values |= {
        "ids": np.array(["new", 'quo"ted', "damaged", "unlabelled"]),
        "split": np.full(4, ""),
        "labels": np.full(4, UNLABELLED),
    }
    found = recorded_images(path, ImageSet(**values))
    assert found.ids.tolist() == ['quo"ted', "unlabelled"]
    kept = before.take(np.isin(before.ids, found.ids))
    assert found.split.tolist() == kept.split.tolist()
    names, own = (*found.class_names, ""), (*before.class_names, "")
    assert [names[each] for each in found.labels] == [own[each] for each in kept.labels]
    assert "1 of the images new since training, left out, the first new" in caplog.text
    assert "1 of the images gone since training, the first" in caplog.text
    values["ids"] = np.array(["a", "b", "c", "d"])
    with pytest.raises(UserError, match="none of its 4 images was found"):
        recorded_images(path, ImageSet(**values))


@pytest.mark.parametrize("content", [b"", b"id,path\n1,2\n", b"\xff\xfe", "cut", "hash"], ids=str)
def test_a_damaged_table_is_a_one_line_error(inspected, content):
    images, _, path = inspected
    whole = path.read_bytes()
    if content == "cut":
        content = whole[: len(whole) // 2]
    elif content == "hash":
        content = whole.replace(whole.split(b"\n")[1].split(b",")[-2], b"xyz")
    path.write_bytes(content)
    with pytest.raises(UserError) as error:
        read_image_table(path, images)
    assert "images.csv" in str(error.value)
    assert "\n" not in str(error.value)


def test_a_table_that_is_missing_is_a_one_line_error(inspected, tmp_path):
    with pytest.raises(UserError, match="No such file"):
        read_image_table(tmp_path / "other.csv", inspected[0])


def test_the_clothing_photos_are_all_whole(shared_data, tmp_path):
    with tarfile.open(shared_data / "clothing224.tar") as archive:
        names = [each for each in archive.getmembers() if "/hat/" in each.name]
        archive.extractall(tmp_path, members=names, filter="data")
    inspection = inspect_images(images_in_folder(tmp_path))
    assert len(inspection.images) == 149
    assert inspection.damaged == ()


COMPOSED, DECOMPOSED = "Caf\u00e9", "Cafe\u0301"


def test_a_table_in_another_unicode_form_keeps_its_ids(tmp_path):
    """A table of an older version, with names as they were on the disk."""

    def of(name: str) -> ImageSet:
        source = encoded(picture(0))
        ids = [f"{name}/1.png", "bar/1.png"]
        return ImageSet(np.array(ids), (source,) * 2, [1, 0], ["train", "test"], ("bar", name))

    write_image_table(tmp_path / "images.csv", inspect_images(of(DECOMPOSED)))
    for found in (
        recorded_images(tmp_path / "images.csv", of(COMPOSED)),
        read_image_table(tmp_path / "images.csv", of(COMPOSED)).images,
    ):
        assert found.ids.tolist() == [f"{DECOMPOSED}/1.png", "bar/1.png"]
        assert found.split.tolist() == ["train", "test"]
        assert [found.class_names[label] for label in found.labels] == [COMPOSED, "bar"]
