"""Exact and near duplicates, across splits and in groups."""

from __future__ import annotations

import io
import tarfile
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from PIL import Image

from cbir_tf.data import duplicates
from cbir_tf.data.duplicate_groups import (
    Contradiction,
    Copy,
    contradictions,
    duplicate_groups,
    picture_groups,
)
from cbir_tf.data.duplicates import (
    FEWEST_BITS,
    NEAR,
    Duplicate,
    cross_split_duplicates,
    near_pairs,
)
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


def bits(found: Inspection, position: int) -> str:
    return "".join(f"{int(word):064b}" for word in found.hashes[position])


def differing(found: Inspection, one: int, other: int) -> int:
    return sum(a != b for a, b in zip(bits(found, one), bits(found, other), strict=True))


def is_near(found: Inspection, one: int, other: int, max_distance: int) -> bool:
    telling = min(ones(bits(found, one)), ones(bits(found, other))) >= FEWEST_BITS
    return telling and differing(found, one, other) <= max_distance


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
                name = str(images.ids[there])
                if found.digests[here] == found.digests[there]:
                    candidates.append(("exact", 0, name))
                elif is_near(found, here, there, max_distance):
                    candidates.append(("near", differing(found, here, there), name))
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
    with blocks_of(pairs_at_once):
        assert cross_split_duplicates(found, max_distance) == naive(found, max_distance)


@contextmanager
def blocks_of(pairs: int):
    usual, duplicates._PAIRS_AT_ONCE = duplicates._PAIRS_AT_ONCE, pairs
    try:
        yield
    finally:
        duplicates._PAIRS_AT_ONCE = usual


# --- groups -------------------------------------------------------------------------------------


def pictures() -> tuple[bytes, ...]:
    """Few enough sizes, in pixels and in bytes, that many are equal."""
    contents = []
    for size in ((1, 6), (2, 3), (3, 3)):
        buffer = io.BytesIO()
        Image.new("RGB", size).save(buffer, "PNG")
        contents += [buffer.getvalue(), buffer.getvalue() + b"more"]
    return tuple(contents)


PICTURES = pictures()


def reachable(start: int, count: int, linked) -> set[int]:
    found, todo = {start}, [start]
    while todo:
        here = todo.pop()
        new = {there for there in range(count) if there not in found and linked(here, there)}
        found |= new
        todo += new
    return found


def naive_groups(found: Inspection, further: set[tuple[int, int]], max_distance: int):
    """Kind, position and differing bits of the images of each group, by comparing all pairs."""
    count, sources = len(found.images), found.images.sources
    close = {
        (one, other)
        for one in range(count)
        for other in range(one)
        if is_near(found, one, other, max_distance)
    }

    def exact(one: int, other: int) -> bool:
        return found.digests[one] == found.digests[other]

    def near(one: int, other: int) -> bool:
        return exact(one, other) or (max(one, other), min(one, other)) in close

    def tied(one: int, other: int) -> bool:
        return near(one, other) or not further.isdisjoint([(one, other), (other, one)])

    def preference(position: int):
        with Image.open(io.BytesIO(sources[position])) as picture:
            pixels = picture.width * picture.height
        return -pixels, -len(sources[position]), str(found.images.ids[position])

    result = []
    for group in {frozenset(reachable(each, count, tied)) for each in range(count)}:
        order = sorted(group, key=preference)
        kinds = ["keep"]
        for number, each in enumerate(order[1:], 1):
            before = set(order[:number])
            if any(exact(each, other) for other in before):
                kinds.append("exact")
            else:
                same = reachable(each, count, near)
                kinds.append("similar" if same.isdisjoint(before) else "near")
        if len(order) > 1:
            differences = [differing(found, order[0], each) for each in order]
            result.append(list(zip(kinds, order, differences, strict=True)))
    return sorted(result, key=lambda group: (-len(group), str(found.images.ids[group[0][1]])))


@settings(max_examples=60)
@given(inspections(), st.data(), st.sampled_from([0, 5, 20]), st.sampled_from([1, 7, 4_000_000]))
def test_groups_are_those_of_the_definition(found, data, max_distance, pairs_at_once):
    position = st.integers(0, len(found.images) - 1)
    further = data.draw(st.lists(st.tuples(position, position), max_size=4))
    of = data.draw(arrays(int, len(found.images), elements=st.integers(0, len(PICTURES) - 1)))
    images = replace(found.images, sources=tuple(PICTURES[each] for each in of))
    found = replace(found, images=images)
    pairs = [tuple(np.array([each]) for each in pair) for pair in further]
    with blocks_of(pairs_at_once):
        groups = duplicate_groups(found, pairs, max_distance)
    assert [[(e.kind, e.position, e.bits) for e in group] for group in groups] == naive_groups(
        found, set(further), max_distance
    )


@settings(max_examples=60)
@given(inspections(), st.sampled_from([-1, 0, 5, 20, 256]), st.sampled_from([1, 7, 4_000_000]))
def test_near_pairs_are_those_of_a_double_loop(found, max_distance, pairs_at_once):
    count = len(found.images)
    with blocks_of(pairs_at_once):
        blocks = list(near_pairs(found.hashes, max_distance))
    assert [pair for some in blocks for pair in np.transpose(some).tolist()] == [
        [one, other]
        for one in range(count)
        for other in range(one + 1, count)
        if is_near(found, one, other, max_distance)
    ]


def test_copies_are_described_and_the_larger_picture_is_kept():
    small, large = PICTURES[0], PICTURES[4]
    found = inspection(["a", "b", "a", "c"], [[2**60 - 1, 1, 0, 0]] * 3 + [[0] * 4], [""] * 4)
    found = replace(found, images=replace(found.images, sources=(small, large, small, large)))
    assert duplicate_groups(found) == [
        (
            Copy("keep", 1, 3, 3, len(large), 0),
            Copy("near", 0, 1, 6, len(small), 0),
            Copy("exact", 2, 1, 6, len(small), 0),
        )
    ]


# --- across splits ------------------------------------------------------------------------------


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


# --- labels -------------------------------------------------------------------------------------


def test_one_picture_with_several_labels_is_a_contradiction_in_whichever_split():
    digests = ["same", "same", "same", "other", "other", "alone"]
    found = inspection(digests, np.zeros((6, 4)), ["train", "train", "test", "", "test", "train"])
    images = replace(found.images, labels=np.array([1, 0, -1, 0, 0, 1]), class_names=("cat", "dog"))
    assert contradictions(images, picture_groups(found)) == [
        Contradiction(("image 000", "image 001"), ("dog", "cat"))
    ]
    agreeing = replace(images, labels=np.array([1, 1, -1, 0, 0, 1]))
    assert contradictions(agreeing, picture_groups(found)) == []


@settings(max_examples=50, deadline=None)
@given(inspections(), st.integers(0, 99))
def test_contradictions_are_those_of_the_definition(found, seed):
    count = len(found.images)
    labels = np.random.default_rng(seed).integers(-1, 2, count)
    images = replace(found.images, labels=labels, class_names=("a", "b"))
    groups = picture_groups(found)
    expected = set()
    for one in range(count):
        group = [
            str(images.ids[other])
            for other in range(count)
            if groups[other] == groups[one] and labels[other] >= 0
        ]
        if len({labels[list(images.ids).index(id_)] for id_ in group}) > 1:
            expected.add(tuple(sorted(group)))
    assert {each.ids for each in contradictions(images, groups)} == expected
