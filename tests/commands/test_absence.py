"""A file that is not found is not a deleted one: drives, permissions, names and returns."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from cbir_tf import Retriever, Run, UserError, extract
from cbir_tf.commands.cli import main
from cbir_tf.features.store import FeatureStore
from cbir_tf.retrieval.galleries import remove_images

pytestmark = pytest.mark.slow


def paint(path: Path, seed: int) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (32, 32, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)
    return path


@pytest.fixture
def album(tmp_path: Path) -> Path:
    """4 pictures beside a drive of 6."""
    for number in range(4):
        paint(tmp_path / "album" / f"{number}.png", number)
    for number in range(6):
        paint(tmp_path / "album" / "drive" / "a" / f"{number}.png", 10 + number)
    return tmp_path / "album"


def vectors(run: Path, folder: Path) -> dict[str, bytes]:
    with FeatureStore.open(run / "features.db") as store:
        found = store.embeddings()
    pairs = zip(found.ids.tolist(), found.vectors, strict=True)
    return {id_: vector.tobytes() for id_, vector in pairs if id_.startswith(f"{folder}/")}


@pytest.fixture
def encoded(monkeypatch) -> list[int]:
    """How many pictures each call of an encoder was given."""
    from cbir_tf.features import runtime

    counts: list[int] = []
    open_encoder = runtime.open_encoder

    def counting(*arguments):
        encoder = open_encoder(*arguments)
        return lambda pixels: counts.append(len(pixels)) or encoder(pixels)

    monkeypatch.setattr(runtime, "open_encoder", counting)
    return counts


def test_below_an_empty_mount_point_nothing_is_removed_and_nothing_encoded_on_return(
    run_folder, album, tmp_path, encoded, caplog
):
    extract(run_folder, folder=album, draw=False)
    before = vectors(run_folder, album)
    assert len(before) == 10
    shutil.move(album / "drive", tmp_path / "unplugged")
    (album / "drive").mkdir()
    encoded.clear()
    done = extract(run_folder, folder=album, draw=False)
    assert done.removed == () and len(done.missing) == 6 and done.new == 0
    assert f"{album}/drive (empty)" in caplog.text
    assert vectors(run_folder, album) == before
    (album / "drive").rmdir()
    shutil.move(tmp_path / "unplugged", album / "drive")
    done = extract(run_folder, folder=album, draw=False)
    assert (done.new, done.missing, encoded) == (0, (), [])


def test_losing_more_than_half_needs_to_be_confirmed(run_folder, album, encoded, capsys):
    extract(run_folder, folder=album, draw=False)
    before = vectors(run_folder, album)
    kept = (album / "drive" / "a" / "0.png").read_bytes()
    shutil.rmtree(album / "drive")
    paint(album / "new.png", 99)
    command = ["extract", "--run", str(run_folder), "--images", str(album), "--no-map"]
    assert main(command) == 2
    line = capsys.readouterr().err.strip().splitlines()[-1]
    assert "6 of its 10 stored images" in line and "--remove-missing" in line
    assert vectors(run_folder, album) == before
    assert main([*command, "--keep-missing"]) == 0
    assert "1 new of 5 images" in capsys.readouterr().out
    assert len(vectors(run_folder, album)) == 11
    assert main([*command, "--remove-missing", "--json"]) == 0
    assert len(json.loads(capsys.readouterr().out)["removed"]) == 6
    assert len(vectors(run_folder, album)) == 5
    # What returns is known by its content.
    encoded.clear()
    (album / "drive").mkdir()
    (album / "drive" / "back.png").write_bytes(kept)
    done = extract(run_folder, folder=album, draw=False)
    assert (done.new, done.known, encoded) == (1, 1, [])
    after = vectors(run_folder, album)
    assert after[f"{album}/drive/back.png"] == before[f"{album}/drive/a/0.png"]


def test_half_or_fewer_are_removed(run_folder, album):
    extract(run_folder, folder=album, draw=False)
    for number in range(5):
        (album / "drive" / "a" / f"{number}.png").unlink()
    done = extract(run_folder, folder=album, draw=False)
    assert sorted(Path(each).name for each in done.removed) == [f"{each}.png" for each in range(5)]


def test_renamed_files_are_not_encoded_and_not_lost(run_folder, album, encoded):
    extract(run_folder, folder=album, draw=False)
    before = vectors(run_folder, album)
    encoded.clear()
    (album / "drive").rename(album / "holiday")
    done = extract(run_folder, folder=album, draw=False)
    assert (done.new, done.known, len(done.removed), encoded) == (6, 6, 6, [])
    after = vectors(run_folder, album)
    assert sorted(after.values()) == sorted(before.values())
    assert f"{album}/holiday/a/0.png" in after and f"{album}/drive/a/0.png" not in after


def test_a_folder_without_permission_is_named_and_keeps_its_images(
    run_folder, album, monkeypatch, caplog
):
    extract(run_folder, folder=album, draw=False)
    before = vectors(run_folder, album)
    locked, scandir = album / "drive", os.scandir

    def refusing(path="."):  # root may read any folder
        if Path(path).is_relative_to(locked):
            raise PermissionError(13, "Permission denied", str(path))
        return scandir(path)

    if os.geteuid():
        locked.chmod(0)
    else:
        monkeypatch.setattr(os, "scandir", refusing)
    try:
        done = extract(run_folder, folder=album, remove_missing=True, draw=False)
        named = f"{locked}: cannot be read"
        assert named in caplog.text and "permission denied" in caplog.text
        assert done.removed == () and len(done.missing) == 6
        assert vectors(run_folder, album) == before
        with pytest.raises(UserError, match="cannot be read"):
            extract(run_folder, folder=locked, draw=False)
        assert vectors(run_folder, album) == before
    finally:
        locked.chmod(0o755)


def test_a_link_to_a_drive_that_is_gone_keeps_its_images(run_folder, album, tmp_path):
    shutil.move(album / "drive", tmp_path / "mounted")
    (album / "drive").symlink_to(tmp_path / "mounted")
    extract(run_folder, folder=album, draw=False)
    (tmp_path / "mounted").rename(tmp_path / "unmounted")
    assert extract(run_folder, folder=album, draw=False).removed == ()
    assert len(vectors(run_folder, album)) == 10


def test_a_file_that_cannot_be_read_for_the_moment_keeps_its_vector(run_folder, album, monkeypatch):
    from cbir_tf.features import file_states

    extract(run_folder, folder=album, draw=False)
    before = vectors(run_folder, album)
    for path in album.rglob("1.png"):
        path.touch()  # so that it is read again
    real = file_states.sha256

    def failing(source):
        if isinstance(source, Path) and source.name == "1.png":
            raise OSError(5, "Input/output error")
        return real(source)

    monkeypatch.setattr(file_states, "sha256", failing)
    done = extract(run_folder, folder=album, draw=False)
    assert len(done.unreadable) == 2  # album/1.png and drive/a/1.png
    assert vectors(run_folder, album) == before


def test_an_emptied_or_deleted_folder_is_kept_until_it_is_removed_by_name(
    run_folder, album, capsys
):
    extract(run_folder, folder=album, draw=False)
    shutil.rmtree(album)
    command = ["--run", str(run_folder), "--images", str(album)]
    for _ in range(2):
        assert main(["extract", *command]) == 2
        line = capsys.readouterr().err.strip().splitlines()[-1]
        assert "10 images stored from there are kept" in line and "cbir remove" in line
        assert len(vectors(run_folder, album)) == 10
        album.mkdir(exist_ok=True)
    assert main(["remove", *command]) == 0
    assert "10 images removed" in capsys.readouterr().out
    assert vectors(run_folder, album) == {}
    assert main(["remove", *command]) == 2


def test_dead_paths_are_found_with_a_note_until_they_are_removed(run_folder, album, capsys):
    extract(run_folder, folder=album, draw=False)
    (album / "1.png").unlink()
    query = ["search", "--run", str(run_folder), str(album / "0.png"), "-k", "9"]
    query += ["--gallery", "album"]
    assert main(query) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line for line in lines if "file missing" in line] == [
        line for line in lines if line.split("  ")[-2].endswith("/1.png") and "/a/" not in line
    ]
    assert main([*query, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)["neighbours"]
    assert [each["id"] for each in found if each["missing"]] == [f"{album}/1.png"]
    run = Run.open(run_folder)
    with Retriever(run) as retriever:
        hits = retriever.search(album / "0.png", 9, "gallery=album").hits()
        assert [hit.id for hit in hits if hit.is_missing] == [f"{album}/1.png"]
    # The drive is not mounted: its images are out of reach, and stay.
    shutil.rmtree(album / "drive" / "a")
    assert remove_images(run, missing=True) == [f"{album}/1.png"]
    assert len(vectors(run_folder, album)) == 9


def test_file_names_in_any_bytes_are_stored_found_and_listed(run_folder, tmp_path, capsys):
    folder = tmp_path / "old names"
    paint(folder / "plain.png", 1)
    paint(folder / "é.png", 2)
    names = [
        os.fsdecode(b"caf\xe9.png"),
        os.fsdecode(b"\xff\xfe.png"),
        "\U0010fffe.png",
        "\ue000.png",
    ]
    try:
        for number, name in enumerate(names):
            paint(folder / name, 3 + number)
    except (OSError, UnicodeError):
        pytest.skip("this file system takes only Unicode names")
    done = extract(run_folder, folder=folder)
    assert len(done.ids) == 6
    expected = sorted(f"{folder}/{name}" for name in [*names, "plain.png", "é.png"])
    with FeatureStore.open(run_folder / "features.db") as store:
        ids = [each for each in store.embeddings().ids.tolist() if each.startswith(f"{folder}/")]
        assert ids == expected == sorted(ids)
        assert store.select([], gallery="old names").tolist() == expected
        assert {str(each.path) for each in store.records_of(expected)} == set(expected)
        assert set(expected) <= store.digests().keys()
    with Retriever.open(run_folder) as retriever:
        for name in names:
            query = folder / name
            assert retriever.stored_id(query) == str(query)
            found = retriever.search(query, 5, "gallery=old names")
            assert sorted(found.ids[0].tolist()) == [
                each for each in expected if each != str(query)
            ]
            copy = retriever.search(query.read_bytes(), 1).hits()[0]
            assert copy.id == str(query) and not copy.is_missing
    assert extract(run_folder, folder=folder).new == 0
    (folder / names[0]).rename(folder / "now utf-8.png")
    done = extract(run_folder, folder=folder, draw=False)
    assert done.removed == (f"{folder}/{names[0]}",) and done.known == 1


def test_a_query_and_results_of_names_in_any_bytes_are_printed(run_folder, tmp_path):
    name = os.fsdecode(b"caf\xe9.png")
    folder = tmp_path / "latin"
    try:
        paint(folder / name, 1)
    except (OSError, UnicodeError):
        pytest.skip("this file system takes only Unicode names")
    paint(folder / "other.png", 2)
    extract(run_folder, folder=folder, draw=False)
    command = [sys.executable, "-m", "cbir_tf", "search", "--run", str(run_folder), "-k", "1"]
    command += ["--gallery", "latin", "--json", str(folder / name), str(folder / "other.png")]
    done = subprocess.run(command, capture_output=True, check=True, cwd=Path(__file__).parents[2])
    first, second = json.loads(done.stdout)
    assert first["query"] == str(folder / name) == second["neighbours"][0]["id"]
    assert first["neighbours"][0]["path"] == str(folder / "other.png")
    listed = [*command[:3], "remove", *command[4:6], str(folder / name)]
    assert b"1 images removed" in subprocess.run(listed, capture_output=True, check=True).stdout
