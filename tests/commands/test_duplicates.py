"""The verb duplicates: over a folder, and over a run's store."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from cbir_tf.commands.cli import main
from cbir_tf.features.store import FeatureStore

ROOT = Path(__file__).parents[2]
PHOTO = "blue/00.jpg"


def grow(photo: Path, copy: Path, times: float) -> None:
    copy.parent.mkdir(exist_ok=True)
    with Image.open(photo) as image:
        image.resize((round(times * image.width), round(times * image.height))).save(copy)


@pytest.fixture
def folder(tmp_path: Path, photos: Path) -> Path:
    """36 different photos, three copies of one, and files that are not photos."""
    root = Path(shutil.copytree(photos, tmp_path / "holiday photos"))
    shutil.copy(root / PHOTO, root / "red" / "again.jpg")
    grow(root / PHOTO, root / "new\nline" / "large.png", 2)
    grow(root / PHOTO, root / "small.jpg", 0.9)
    (root / "green" / "link.jpg").symlink_to(root / PHOTO)
    (root / "damaged.jpg").write_bytes((root / PHOTO).read_bytes()[:300])
    (root / "empty.png").write_bytes(b"")
    return root


def listed(root: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in root.rglob("*") if path.is_file()}


def test_a_folder_gives_a_line_an_image_a_picture_and_a_summary(folder, tmp_path, capsys):
    before, grid = listed(folder), tmp_path / "grid.png"
    assert main(["duplicates", "--images", str(folder), "--grid", str(grid)]) == 0
    output, errors = capsys.readouterr()
    rows = [line.split("\t") for line in output.splitlines()]
    size = str((folder / PHOTO).stat().st_size)
    assert [row[:2] + row[3:4] + row[5:] for row in rows] == [
        ["1", "keep", "128x96", rf"{folder}/new\nline/large.png"],
        ["1", "near", "64x48", f"{folder}/{PHOTO}"],
        ["1", "exact", "64x48", f"{folder}/red/again.jpg"],
        ["1", "near", "58x43", f"{folder}/small.jpg"],
    ]
    assert rows[0][2] == "-"
    assert rows[1][2] == rows[2][2]
    assert 0 < int(rows[3][2]) <= 20
    assert rows[1][4] == rows[2][4] == size
    assert "1 group among 39 images" in errors
    assert "1 exact, 2 near" in errors
    assert "1 links" in errors
    assert "left out: empty.png: the file is empty" in errors
    assert listed(folder) == before
    with Image.open(grid) as picture:
        assert picture.width > 4 * 200


def test_json_is_one_document_with_every_number(folder, capsys):
    assert main(["duplicates", "--images", str(folder), "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert result["images"] == 39
    assert result["damaged"].keys() == {"damaged.jpg", "empty.png"}
    (group,) = result["groups"]
    assert [each["kind"] for each in group] == ["keep", "near", "exact", "near"]
    assert group[1]["digest"] == group[2]["digest"] != group[0]["digest"]
    assert group[0] == {
        "kind": "keep",
        "id": "new\nline/large.png",
        "path": f"{folder}/new\nline/large.png",
        "width": 128,
        "height": 96,
        "bytes": (folder / "new\nline" / "large.png").stat().st_size,
        "digest": group[0]["digest"],
        "bits": 0,
        "distance": None,
    }


def test_the_largest_groups_are_drawn_with_their_number(photos, tmp_path, monkeypatch):
    from cbir_tf.plots import duplicate_grid

    drawn = []
    monkeypatch.setattr(duplicate_grid, "group_grid", lambda *arguments: drawn.append(arguments))
    for number, photo in enumerate(sorted(photos.rglob("*.jpg"))[:21]):
        for copy in range(13 if number == 20 else 2):
            target = tmp_path / "photos" / f"{copy}" / f"{number}.jpg"
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(photo, target)
    command = ["duplicates", "--images", str(tmp_path / "photos"), "--grid", "grid.png"]
    assert main(command) == 0
    ((path, groups, title),) = drawn
    assert (str(path), title) == ("grid.png", "20 largest of 21 groups of duplicates")
    assert [len(group) for group in groups] == [10, *[2] * 19]
    assert [each.heading for each in groups[0]] == ["keep; 10 of 13", *["exact"] * 9]
    assert groups[1][0].heading == "keep"
    assert groups[1][1].caption == "0.jpg\n1\n64 x 48, 2 kB"


def test_a_folder_without_duplicates_is_a_success(photos, tmp_path, capsys):
    (tmp_path / "one").mkdir()
    shutil.copy(photos / PHOTO, tmp_path / "one")
    for folder, count in ((photos, "36 images"), (tmp_path / "one", "1 image")):
        grid = tmp_path / "grid.png"
        assert main(["duplicates", "--images", str(folder), "--grid", str(grid)]) == 0
        output, errors = capsys.readouterr()
        assert output == ""
        assert f"no duplicates among {count}\n" in errors
        assert Image.open(grid).width > 100


def test_a_folder_is_checked_without_tensorflow(photos):
    program = (
        "import sys; from cbir_tf.commands.cli import main; status = main(sys.argv[1:]); "
        "sys.exit(status or 'tensorflow' in sys.modules or 'keras' in sys.modules)"
    )
    command = [sys.executable, "-c", program, "duplicates", "--images", str(photos)]
    assert subprocess.run(command, cwd=ROOT, check=False, capture_output=True).returncode == 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--images", "{tmp}/missing"], "missing: no such folder"),
        (["--images", "{tmp}"], "no images found"),
        (["--images", "{tmp}/damaged"], "none of the images can be decoded"),
        (["--images", "{photos}", "--images", "{photos}"], "--images is given more than once"),
        (["--run", "{tmp}", "--run", "{tmp}"], "--run is given more than once"),
        (["--run", "{tmp}"], "no run there"),
        (["--images", "{photos}", "--distance", "0.1"], "--distance compares embeddings"),
        (["--images", "{photos}", "--grid", "{tmp}/grid.txt"], "no picture format"),
    ],
)
def test_wrong_input_is_a_one_line_error_with_status_2(
    photos, tmp_path, capsys, arguments, message
):
    (tmp_path / "damaged").mkdir()
    if "damaged" in arguments[1]:
        (tmp_path / "damaged" / "a.jpg").write_text("no picture")
    arguments = [each.format(tmp=tmp_path, photos=photos) for each in arguments]
    assert main(["duplicates", *arguments]) == 2
    output, errors = capsys.readouterr()
    assert output == ""
    line = errors.strip().splitlines()[-1]
    assert line.startswith("error: ")
    assert message in line


@pytest.mark.parametrize(
    "arguments",
    [[], ["--images", "a", "--run", "b"], ["--run", "a", "--distance", "-1"]],
)
def test_what_the_command_line_cannot_mean_is_refused(arguments, capsys):
    with pytest.raises(SystemExit) as exit_:
        main(["duplicates", *arguments])
    assert exit_.value.code == 2
    assert capsys.readouterr().err.splitlines()[-1].startswith("cbir duplicates: error: ")


@pytest.mark.slow
def test_a_run_is_checked_and_embeddings_join_groups_with_distance(run_folder, folder, capsys):
    shutil.move(folder / "new\nline", folder / "line")
    assert main(["extract", "--run", str(run_folder), "--images", str(folder)]) == 0
    (folder / "small.jpg").unlink()
    capsys.readouterr()

    def groups(*more: str) -> list[list[dict]]:
        assert main(["duplicates", "--run", str(run_folder), "--json", *more]) == 0
        result = json.loads(capsys.readouterr().out)
        assert result["damaged"] == {
            f"{folder}/small.jpg": "cannot be read: No such file or directory"
        }
        return result["groups"]

    # The run's own photos, in another folder, are all copies of those in this one.
    found = groups()
    assert [len(group) for group in found] == [4, *[2] * 35]
    assert {each["distance"] for group in found for each in group} == {None}
    assert sorted(each["kind"] for each in found[0]) == ["exact", "exact", "keep", "near"]

    with FeatureStore.open(run_folder / "features.db") as store:
        embeddings = store.embeddings()
    unit = embeddings.vectors / np.linalg.norm(embeddings.vectors, axis=1, keepdims=True)
    vectors = dict(zip(embeddings.ids.tolist(), unit.astype(np.float64), strict=True))
    apart = [
        float(1 - vectors[one] @ vectors[other])
        for one in vectors
        for other in vectors
        if one < other
    ]
    threshold = float(np.quantile(apart, 0.02))
    joined = groups("--distance", str(threshold))
    assert sum(map(len, joined)) >= sum(map(len, found))
    assert len(joined) < len(found)
    similar = 0
    for group in joined:
        for each in group:
            expected = 1 - vectors[group[0]["id"]] @ vectors[each["id"]]
            assert each["distance"] == pytest.approx(expected, abs=2e-6)
            similar += each["kind"] == "similar"
        nearest = [
            min(1 - vectors[one["id"]] @ vectors[each["id"]] for each in group if each is not one)
            for one in group
            if one["kind"] == "similar"
        ]
        assert all(distance <= threshold + 1e-6 for distance in nearest)
    assert similar
