"""Releases come whole and with the right digests, or not at all."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cbir_tf.errors import UserError
from cbir_tf.releases.fetch import fetch, is_fetched
from cbir_tf.releases.manifest import MANIFEST, check_files, read_manifest, write_manifest
from cbir_tf.releases.registry import Reference, Registry


def same(one: Path, other: Path) -> bool:
    names = {each.name for each in one.iterdir()}
    return names == {each.name for each in other.iterdir()} and all(
        (one / name).read_bytes() == (other / name).read_bytes() for name in names
    )


def cached(shelf) -> list[Path]:
    return list((shelf.file.parent / "cache" / "releases").glob("*"))


def test_sha256sum_checks_the_manifest_too(shelf):
    command = ["sha256sum", "--quiet", "-c", MANIFEST]
    assert subprocess.run(command, cwd=shelf.folder, check=False).returncode == 0
    (shelf.folder / "labels.json").write_text("[]")
    assert subprocess.run(command, cwd=shelf.folder, check=False).returncode == 1


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_any_changed_byte_is_detected(shelf, data):
    write_manifest(shelf.folder)
    digests = check_files(shelf.folder)
    name = data.draw(st.sampled_from(sorted(digests)))
    content = bytearray((shelf.folder / name).read_bytes())
    content[data.draw(st.integers(0, len(content) - 1))] ^= data.draw(st.integers(1, 255))
    (shelf.folder / name).write_bytes(content)
    with pytest.raises(UserError, match=f"{name} is not the file that was released"):
        check_files(shelf.folder)


@given(st.text(max_size=90))
def test_a_manifest_names_no_file_elsewhere(tmp_path_factory, name):
    file = tmp_path_factory.mktemp("manifest") / MANIFEST
    file.write_text(f"{'0' * 64}  {name}\n", encoding="utf-8")
    try:
        (found,) = read_manifest(file, "here")
    except UserError as error:
        assert str(error).startswith("here: SHA256SUMS")
    else:
        assert found == name and Path(name).name == name and not name.startswith(".")


def test_a_missing_or_extra_file_is_detected(shelf):
    (shelf.folder / "labels.json").rename(shelf.folder / "names.json")
    with pytest.raises(UserError, match=r"labels\.json is missing"):
        check_files(shelf.folder)
    shutil.copy(shelf.folder / "names.json", shelf.folder / "labels.json")
    with pytest.raises(UserError, match=r"names\.json is not in SHA256SUMS"):
        check_files(shelf.folder)


def test_from_a_folder_and_from_the_web(shelf, served):
    folder = fetch(shelf.reference)
    assert same(folder, shelf.folder) and cached(shelf) == [folder]
    shelf.seal(f"{served}/digits-1.0.0/")
    shutil.rmtree(folder)
    assert not is_fetched(Registry.load(shelf.file).entries[0])
    assert same(fetch(shelf.reference), shelf.folder)
    shutil.rmtree(shelf.folder)  # a fetched release needs no second download
    assert fetch(shelf.reference) == folder


def test_from_s3(s3, shelf):
    for each in shelf.folder.iterdir():
        s3.upload_file(str(each), "pictures", f"releases/digits-1.0.0/{each.name}")
    shelf.seal("s3://pictures/releases/digits-1.0.0")
    assert same(fetch(shelf.reference), shelf.folder)


def test_a_changed_file_there_is_refused_and_leaves_nothing(shelf, served):
    shelf.seal(f"{served}/digits-1.0.0")
    content = bytearray((shelf.folder / "model.keras").read_bytes())
    content[1000] ^= 1
    (shelf.folder / "model.keras").write_bytes(content)
    with pytest.raises(UserError, match=r"digits-1\.0\.0: model\.keras is not the file"):
        fetch(shelf.reference)
    write_manifest(shelf.folder)  # nor does a manifest that goes with it help
    with pytest.raises(UserError, match=r"SHA256SUMS is not the file that was released"):
        fetch(shelf.reference)
    assert cached(shelf) == []


def test_a_missing_release_is_refused_and_leaves_no_files(shelf, served):
    (shelf.folder / "labels.json").unlink()
    for address in (f"{served}/digits-1.0.0", "digits-1.0.0"):
        shelf.file.write_text(shelf.file.read_text().replace("digits-1.0.0", address, 1))
        with pytest.raises(UserError, match=r"labels\.json"):
            fetch(shelf.reference)
    for address in (served, "nowhere", "http://127.0.0.1:9", f"{served}/none"):
        shelf.seal(address)
        with pytest.raises(UserError, match=r"SHA256SUMS") as error:
            fetch(shelf.reference)
        assert "\n" not in str(error.value)
    shelf.seal("ftp://host/digits")
    with pytest.raises(UserError, match="not supported; use an address s3://"):
        fetch(shelf.reference)
    assert cached(shelf) == []


def test_a_file_changed_in_the_cache_is_refused(shelf):
    folder = fetch(shelf.reference)
    (folder / "labels.json").write_text("[]")
    with pytest.raises(UserError, match=r"labels\.json is not the file .* delete the folder"):
        fetch(shelf.reference)
    shutil.rmtree(folder)
    assert same(fetch(shelf.reference), shelf.folder)


def test_another_version_of_the_registry_has_another_place(shelf):
    first = fetch(shelf.reference)
    (shelf.folder / "labels.json").write_text("[]")
    shelf.seal()
    assert fetch(shelf.reference) != first
    with pytest.raises(UserError, match="no version 1"):
        fetch(Reference("digits", "1.0.1"))
