"""Exact and near duplicates across splits."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from PIL import Image

from cbir_tf.data import duplicates
from cbir_tf.data.duplicates import FEWEST_BITS, NEAR, Duplicate, cross_split_duplicates
from cbir_tf.data.inspection import Inspection, inspect_images
from cbir_tf.data.sources import images_in_folder
from cbir_tf.types import ImageSet

ORDER = {"train": 0, "validation": 1, "test": 2}


def inspection(digests, hashes, split, ids=None) -> Inspection:
    count = len(digests)
    ids = [f"image {number:03d}" for number in range(count)] if ids is None else ids
    images = ImageSet(np.array(ids), (b"",) * count, np.zeros(count), np.array(split), ("only",))
    return Inspection(images, (), np.array(digests), np.array(hashes, dtype=np.uint64))


def ones(bits: str) -> int:
    return bits.count("1")


def naive(found: Inspection, max_distance: int) -> list[Duplicate]:
    """The definition, one pair after the other."""
    images, result = found.images, []
    for here in range(len(images)):
        for earlier in ("train", "validation"):
            split = str(images.split[here])
            if split not in ORDER or ORDER[split] <= ORDER[earlier]:
                continue
            candidates = []
            for there in np.flatnonzero(images.split == earlier):
                one = "".join(f"{int(word):064b}" for word in found.hashes[here])
                two = "".join(f"{int(word):064b}" for word in found.hashes[there])
                distance = sum(a != b for a, b in zip(one, two, strict=True))
                name = str(images.ids[there])
                if found.digests[here] == found.digests[there]:
                    candidates.append(("exact", 0, name))
                elif distance <= max_distance and min(map(ones, (one, two))) >= FEWEST_BITS:
                    candidates.append(("near", distance, name))
            if candidates:
                kind, distance, name = min(candidates)
                result.append(
                    Duplicate(kind, str(images.ids[here]), split, name, earlier, distance)
                )
    return sorted(result, key=lambda each: (each.kind, each.distance, each.id, each.other_id))


@st.composite
def inspections(draw) -> Inspection:
    """Few digests, and hashes a few bits away from one another, some of them almost empty."""
    count = draw(st.integers(1, 25))
    generator = np.random.default_rng(draw(st.integers(0, 2**32)))
    bits = generator.random((3, 256)) < np.array([[0.1], [0.3], [0.5]])
    flips = generator.random((count, 256)) < draw(st.sampled_from([0.0, 0.02, 0.05]))
    rows = bits[generator.integers(0, 3, count)] ^ flips
    hashes = np.packbits(rows, axis=1).view(">u8").astype(np.uint64)
    digests = [f"digest {each}" for each in generator.integers(0, draw(st.integers(1, 60)), count)]
    split = draw(arrays("U10", count, elements=st.sampled_from([*ORDER, ""])))
    ids = draw(st.permutations([f"image {number:03d}" for number in range(count)]))
    return inspection(digests, hashes, split, ids)


@settings(max_examples=150, deadline=None)
@given(inspections(), st.sampled_from([-1, 0, 5, 20, 256]), st.sampled_from([1, 7, 4_000_000]))
def test_duplicates_are_those_of_the_definition(found, max_distance, pairs_at_once):
    usual = duplicates._PAIRS_AT_ONCE
    duplicates._PAIRS_AT_ONCE = pairs_at_once
    try:
        assert cross_split_duplicates(found, max_distance) == naive(found, max_distance)
    finally:
        duplicates._PAIRS_AT_ONCE = usual


def test_the_same_bytes_in_train_and_test_are_exact():
    found = inspection(["a", "b", "a"], [[0, 0, 0, 0]] * 3, ["train", "train", "test"])
    assert cross_split_duplicates(found) == [
        Duplicate("exact", "image 002", "test", "image 000", "train", 0)
    ]


def test_a_few_bits_away_is_near_and_further_is_not():
    full = 2**64 - 1
    hashes = [[full, 0, 0, 0], [full, 2**NEAR - 1, 0, 0], [full, 0, 0, 2 ** (NEAR + 1) - 1]]
    found = inspection(["a", "b", "c"], hashes, ["train", "test", "validation"])
    assert cross_split_duplicates(found) == [
        Duplicate("near", "image 001", "test", "image 000", "train", NEAR)
    ]


def test_blank_pictures_do_not_flood_the_report():
    count = 400
    digests = [f"{number}" for number in range(count)]
    split = ["train", "test"] * (count // 2)
    assert cross_split_duplicates(inspection(digests, np.zeros((count, 4)), split)) == []


def test_pictures_within_one_split_or_in_none_are_not_reported():
    full = [[2**64 - 1] * 4] * 4
    found = inspection(["a"] * 4, full, ["train", "train", "", ""])
    assert cross_split_duplicates(found) == []


def test_scaled_and_recompressed_photos_are_found_and_no_others(shared_data, tmp_path):
    with tarfile.open(shared_data / "clothing224.tar") as archive:
        photos = [each for each in archive.getmembers() if "/hat/" in each.name]
        archive.extractall(tmp_path, members=photos, filter="data")
    originals = images_in_folder(tmp_path)
    copies = [scaled_and_recompressed(each) for each in originals.sources]
    count = len(copies)
    images = ImageSet(
        np.concatenate([originals.ids, [f"copy of {each}" for each in originals.ids]]),
        (*originals.sources, *copies),
        np.zeros(2 * count),
        np.repeat(["train", "test"], count),
        ("hat",),
    )
    found = cross_split_duplicates(inspect_images(images))
    assert count > 100
    assert {(each.kind, each.id) for each in found} == {
        ("near", f"copy of {each.other_id}") for each in found
    }
    assert len(found) >= 0.97 * count


def scaled_and_recompressed(photo: Path) -> bytes:
    buffer = io.BytesIO()
    with Image.open(photo) as image:
        size = (round(0.7 * image.width), round(0.7 * image.height))
        image.convert("RGB").resize(size).save(buffer, format="JPEG", quality=60)
    return buffer.getvalue()
