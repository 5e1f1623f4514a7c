"""Addresses of S3 and their places in the mirror: one to one, and never outside it."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cbir_tf.config import Config
from cbir_tf.errors import UserError
from cbir_tf.storage.addresses import (
    address_of,
    as_addresses,
    is_mirrored,
    key_of,
    mirror,
    path_of,
    place_of,
)

PARTS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="/\0"), min_size=1)
KEYS = st.lists(PARTS.filter(lambda part: part not in (".", "..")), min_size=1).map("/".join)
ANY_KEYS = st.lists(st.sampled_from(["..", ".", "", "a", "\0", "b c", "é", "..."])).map("/".join)


@given(KEYS)
def test_an_address_is_a_place_and_back(key):
    address = f"s3://bucket/{key}"
    path = path_of(address)
    assert address_of(path) == address
    assert key_of(path) == f"bucket/{key}"
    assert is_mirrored(path)
    assert path == mirror() / "bucket" / key


@given(KEYS, KEYS)
def test_two_keys_have_two_places(one, other):
    assert (place_of(f"b/{one}") == place_of(f"b/{other}")) == (one == other)


@given(ANY_KEYS)
def test_no_key_is_outside_the_folder_of_its_bucket(key):
    place = place_of(f"bucket/{key}")
    if place is not None:
        assert place.resolve().is_relative_to(mirror() / "bucket")
    # By the parts, as the text has them: what a file system would read otherwise is refused.
    assert (place is None) == bool({"", ".", "..", "\0"} & set(key.split("/")))


@pytest.mark.parametrize(
    "address",
    [
        "s3://",
        "s3:///key",
        "s3:/bucket/key",
        "s3:bucket",
        "s3://../key",
        "s3://bucket/../other",
        "s3://bucket/a//b",
        "s3://bucket//",
        "s3://bucket/./a",
        "s3://bucket/\udcff",
    ],
)
def test_what_is_no_address_is_refused(address):
    with pytest.raises(UserError, match="not a valid address; write s3://bucket/key"):
        path_of(address)


@pytest.mark.parametrize("address", ["gs://bucket/key", "https://host/key", "file:///tmp/x"])
def test_other_addresses_are_refused(address):
    with pytest.raises(UserError, match="not supported; use an address s3://"):
        path_of(address)


def test_a_path_stays_what_it_is():
    for text in ("photos", "/tmp/a b", "~/x", ".", "digits/0007", "a:b", "x/s3:/y"):
        assert path_of(text) == Path(text)
        assert address_of(Path(text)) == text


def test_a_folders_address_may_end_in_a_slash():
    assert path_of("s3://bucket/photos/") == path_of("s3://bucket/photos")
    assert path_of("s3://bucket/") == path_of("S3://bucket") == mirror() / "bucket"


def test_the_mirror_is_where_the_environment_says(monkeypatch, tmp_path):
    monkeypatch.delenv("CBIR_TF_CACHE", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert path_of("s3://b/k") == tmp_path / "cbir-tf" / "s3" / "b" / "k"
    monkeypatch.setenv("CBIR_TF_CACHE", str(tmp_path / "mine"))
    assert path_of("s3://b/k") == tmp_path / "mine" / "s3" / "b" / "k"
    monkeypatch.delenv("CBIR_TF_CACHE")
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert path_of("s3://b/k") == Path.home() / ".cache" / "cbir-tf" / "s3" / "b" / "k"


def test_messages_speak_of_addresses():
    text = f"{mirror()}/b/run: no run there; is it {mirror()}/b/other?"
    assert as_addresses(text) == "s3://b/run: no run there; is it s3://b/other?"


def test_the_configuration_keeps_addresses(tmp_path, monkeypatch):
    """So that a run holds on another machine, whose mirror is elsewhere."""
    values = {
        "data": {
            "source": "coco",
            "path": "s3://b/images",
            "annotations": ["s3://b/instances.json", str(tmp_path / "more.json")],
        },
        "model": {"backbone": "small_cnn", "weights": "s3://b/x.weights.h5"},
        "search": {"two_step": {"name": "knn", "run": "s3://b/runs/scenes"}},
    }
    config = Config.check(values)
    assert config.data.path == mirror() / "b" / "images"
    file = tmp_path / "config.yaml"
    text = config.dump()
    file.write_text(text)
    assert str(mirror()) not in file.read_text()
    assert str(tmp_path / "more.json") in file.read_text()
    monkeypatch.setenv("CBIR_TF_CACHE", str(tmp_path / "another machine"))
    loaded = Config.load(file)
    assert loaded.data.path == tmp_path / "another machine" / "s3" / "b" / "images"
    assert loaded.search.two_step.run == tmp_path / "another machine" / "s3/b/runs/scenes"
    assert loaded.model.weights == "s3://b/x.weights.h5"
    assert loaded.dump().replace("name: config", "name: ''") == text


@pytest.mark.parametrize("path", ["gs://b/photos", "s3:/b"])
def test_a_bad_address_in_the_configuration_is_one_line(path):
    with pytest.raises(UserError, match=f"config: {path}: "):
        Config.check({"data": {"source": "folder", "path": path}})
