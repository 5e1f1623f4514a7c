"""A release is seen whole or not at all where it is published, and is never replaced."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from cbir_tf.errors import UserError
from cbir_tf.publishing.publish import copy_release, publish
from cbir_tf.releases.fetch import fetch
from cbir_tf.releases.manifest import MANIFEST, check_files, write_manifest
from cbir_tf.releases.registry import Registry
from cbir_tf.storage import remote


@pytest.fixture
def empty(tmp_path: Path, shelf) -> Registry:
    """A registry that lists nothing yet."""
    return Registry.load(tmp_path / "shelf" / "registry.yaml")


def changed(shelf) -> None:
    (shelf.folder / "labels.json").write_text("[]")
    write_manifest(shelf.folder)


def test_to_a_folder_below_the_registry_s_and_elsewhere(shelf, empty, tmp_path):
    entry = publish(shelf.folder, str(empty.file.parent / "big"), empty)
    assert entry.address == "big/digits-1.0.0" and entry.licence == "Apache-2.0"
    check_files(empty.file.parent / entry.address, entry.sha256)
    assert Registry.load(empty.file).entries == (entry,)
    moved = publish(shelf.folder, str(tmp_path / "other"), Registry.load(empty.file))
    assert moved.address == str(tmp_path / "other" / "digits-1.0.0")
    assert fetch(shelf.reference, empty.file).name.startswith("digits-1.0.0-")


def test_publishing_twice_changes_nothing_and_a_different_release_is_refused(
    shelf, empty, tmp_path
):
    place = tmp_path / "place" / "digits-1.0.0"
    publish(shelf.folder, str(place.parent), empty)
    before = {each.name: each.stat().st_mtime_ns for each in place.iterdir()}
    publish(shelf.folder, str(place.parent), Registry.load(empty.file))
    changed(shelf)
    with pytest.raises(UserError, match=r"lists another digits@1\.0\.0"):
        publish(shelf.folder, str(place.parent), Registry.load(empty.file))
    empty.file.unlink()
    with pytest.raises(UserError, match="another release of this name and version is there"):
        publish(shelf.folder, str(place.parent), Registry.load(empty.file))
    assert {each.name: each.stat().st_mtime_ns for each in place.iterdir()} == before
    assert not empty.file.exists()


def test_publishing_again_repairs_damaged_files(shelf, empty, tmp_path):
    place = tmp_path / "place" / "digits-1.0.0"
    entry = publish(shelf.folder, str(place.parent), empty)
    (place / "labels.json").write_text("[]")
    publish(shelf.folder, str(place.parent), Registry.load(empty.file))
    check_files(place, entry.sha256)


def test_interrupted_it_is_not_seen_and_goes_on_where_it_was(shelf, empty, tmp_path, monkeypatch):
    place = tmp_path / "place" / "digits-1.0.0"
    copied = []

    def copy(source: Path, target: Path) -> None:
        if len(copied) == 4:
            raise KeyboardInterrupt
        copied.append(Path(source).name)
        Path(target).write_bytes(Path(source).read_bytes())

    with monkeypatch.context() as patch:
        patch.setattr(shutil, "copyfile", copy)
        with pytest.raises(KeyboardInterrupt):
            publish(shelf.folder, str(place.parent), empty)
    assert {each.name for each in place.iterdir()} == set(copied) and MANIFEST not in copied
    assert not empty.file.exists()
    before = {name: (place / name).stat().st_mtime_ns for name in copied}
    publish(shelf.folder, str(place.parent), empty)
    assert {name: (place / name).stat().st_mtime_ns for name in copied} == before
    check_files(place)


def test_a_target_that_cannot_be_written_is_reported(shelf, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot be written"):
        copy_release(shelf.folder, tmp_path / "file" / "digits-1.0.0")


def keys(s3) -> set[str]:
    listed = s3.list_objects_v2(Bucket="pictures").get("Contents", ())
    return {each["Key"] for each in listed}


def test_to_s3_and_from_there(s3, shelf, empty):
    entry = publish(shelf.folder, "s3://pictures/releases", empty)
    assert entry.address == "s3://pictures/releases/digits-1.0.0"
    assert keys(s3) == {f"releases/digits-1.0.0/{each.name}" for each in shelf.folder.iterdir()}
    shutil.rmtree(remote.path_of("s3://pictures"))  # as from another machine
    check_files(fetch(shelf.reference, empty.file), entry.sha256)


def test_the_registry_may_be_on_s3_too(s3, shelf):
    file = remote.path_of("s3://pictures/registry.yaml")
    entry = publish(shelf.folder, "s3://pictures/releases", Registry.load(file))
    shutil.rmtree(remote.path_of("s3://pictures"))
    assert Registry.load(file).entries == (entry,)
    check_files(fetch(shelf.reference, file), entry.sha256)


def test_s3_has_the_manifest_last_and_an_interrupted_call_goes_on(s3, shelf, empty, monkeypatch):
    import s3fs

    sent: list[str] = []
    put_file = s3fs.S3FileSystem.put_file

    def four_then_cut_off(self, source, *arguments, **options):
        if len(sent) >= 4:
            raise UserError("the network is gone")
        sent.append(Path(source).name)
        put_file(self, source, *arguments, **options)

    def noted(self, source, *arguments, **options):
        sent.append(Path(source).name)
        put_file(self, source, *arguments, **options)

    with monkeypatch.context() as patch:
        patch.setattr(remote, "THREADS", 1)
        patch.setattr(s3fs.S3FileSystem, "put_file", four_then_cut_off)
        with pytest.raises(UserError, match="the network is gone"):
            publish(shelf.folder, "s3://pictures/releases", empty)
    assert len(keys(s3)) == 4 and MANIFEST not in sent and not empty.file.exists()
    first = set(sent)
    sent.clear()
    monkeypatch.setattr(s3fs.S3FileSystem, "put_file", noted)
    publish(shelf.folder, "s3://pictures/releases", empty)
    assert set(sent) == {each.name for each in shelf.folder.iterdir()} - first
    assert sent[-1] == MANIFEST


def test_a_version_on_s3_is_never_replaced(s3, shelf, empty):
    publish(shelf.folder, "s3://pictures/releases", empty)
    before = {key: s3.head_object(Bucket="pictures", Key=key)["ETag"] for key in keys(s3)}
    changed(shelf)
    empty.file.unlink()
    for _ in range(2):  # as from this machine, then from another
        with pytest.raises(UserError, match="another release of this name and version is there"):
            publish(shelf.folder, "s3://pictures/releases", Registry.load(empty.file))
        shutil.rmtree(remote.path_of("s3://pictures"), ignore_errors=True)
    assert {key: s3.head_object(Bucket="pictures", Key=key)["ETag"] for key in keys(s3)} == before
    with pytest.raises(UserError, match="no bucket"):
        publish(shelf.folder, "s3://nowhere-at-all/releases", Registry.load(empty.file))
