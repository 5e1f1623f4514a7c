"""Further folders in a run: galleries by name, which leave the run's figures as they are."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path

import pytest

from cbir_tf import Retriever, Run, evaluate, extract
from cbir_tf.commands.cli import main
from cbir_tf.data.added import adding
from cbir_tf.features import encode as encoding
from cbir_tf.features.store import FeatureStore
from cbir_tf.retrieval.galleries import list_galleries
from cbir_tf.retrieval.run_measures import calibrate, classify

pytestmark = pytest.mark.slow


@pytest.fixture
def other(tmp_path: Path, photos: Path) -> Path:
    """Photos of the same classes with wrong labels, in splits that a manifest gives."""
    folder = tmp_path / "other"
    folder.mkdir()
    rows = []
    for number, path in enumerate(sorted(photos.rglob("*.jpg"))):
        name = f"{path.parent.name}{path.name}"
        # Other bytes: the same pictures would be known.
        (folder / name).write_bytes(path.read_bytes() + b"\0")
        label = ["blue", "green", "red", "iris"][number % 4]
        rows.append([name, label, ["train", "validation", "test"][number % 3]])
    with (folder / "manifest.csv").open("w", newline="") as file:
        csv.writer(file).writerows([["path", "label", "split"], *rows])
    return folder


def settled(run: Path, **search: object) -> None:
    import yaml

    path = run / "config.yaml"
    values = yaml.safe_load(path.read_text())
    values["search"] |= search
    path.write_text(yaml.safe_dump(values))


@pytest.mark.parametrize("search", [{}, {"pca": 4, "whiten": 0.5}, {"two_step": "knn"}], ids=str)
def test_another_folder_leaves_the_figures_of_a_run_as_they_are(run_folder, other, search):
    settled(run_folder, **search)
    run = Run.open(run_folder)
    extract(run, "all", draw=False)

    def figures():
        measured = evaluate(run, "test")
        against = evaluate(run, "test", "train")
        threshold = calibrate(run, 0.2)[0].threshold
        classified = classify(run, ["knn"])
        for each in (measured, against):
            each.pop("files")
        classified["classifiers"][0].pop("seconds")
        return measured, against, threshold, classified

    before = figures()
    extract(run, folder=other, draw=False)
    assert figures() == before
    assert before[0]["queries"] == 9


def test_galleries_are_listed_searched_apart_or_together_and_removed(
    run_folder, other, photos, tmp_path, capsys
):
    second = Path(shutil.copytree(photos / "red", tmp_path / "elsewhere" / "other"))
    third = Path(shutil.copytree(photos / "blue", tmp_path / "third"))
    for folder, name in ((other, None), (second, None), (third, "sea, sky")):
        extract(run_folder, folder=folder, gallery=name, draw=False)
    command = ["--run", str(run_folder)]
    assert main(["galleries", *command, "--json"]) == 0
    listed = {each["name"]: each for each in json.loads(capsys.readouterr().out)}
    assert {name: each["images"] for name, each in listed.items()} == {
        "run": 36,
        "other": 36,
        "other-2": 12,
        "sea, sky": 12,
    }
    assert listed["other-2"]["folders"] == [str(second)] and listed["run"]["folders"] == []

    def found(*arguments: str) -> set[str]:
        assert main(["search", *command, "red/03.jpg", "-k", "8", "--json", *arguments]) == 0
        ids = [each["id"] for each in json.loads(capsys.readouterr().out)["neighbours"]]
        names = {str(other): "other", str(second): "other-2", str(third): "sea, sky"}
        return {names.get(str(Path(id_).parent), "run") for id_ in ids}

    assert found("--gallery", "sea, sky") == {"sea, sky"}
    assert found("--where", "gallery=other-2") == {"other-2"}
    assert found("--where", "gallery=run") == {"run"}
    assert found("--gallery", "other", "--gallery", "sea, sky") <= {"other", "sea, sky"}
    assert found("--where", "label=") <= {"other-2", "sea, sky"}
    assert len(found()) > 1

    assert main(["remove", *command, "--gallery", "no such"]) == 2
    assert main(["remove", *command, "--gallery", "other"]) == 0
    assert "36 images removed; 60 in" in capsys.readouterr().out
    assert main(["remove", *command, str(third / "00.jpg"), "red/03.jpg"]) == 0
    assert {each.name: each.images for each in list_galleries(Run.open(run_folder))} == {
        "run": 35,
        "other-2": 12,
        "sea, sky": 11,
    }
    assert main(["remove", *command]) == 2
    assert all(each.is_file() for each in other.glob("*.jpg"))


def test_an_image_stays_in_its_gallery_and_moves_where_a_name_is_given(run_folder, other, tmp_path):
    run = Run.open(run_folder)
    extract(run, folder=other, draw=False)
    (other / "manifest.csv").unlink()
    inner = other / "inner"
    inner.mkdir()
    shutil.copy(other / "red00.jpg", inner / "copy.jpg")
    assert extract(run, folder=inner, draw=False).gallery == "other"
    with FeatureStore.open(run.features) as store:
        assert store.record(f"{inner}/copy.jpg").gallery == "other"
    assert extract(run, folder=inner, gallery="inside", draw=False).new == 0
    extract(run, folder=other, draw=False)
    with FeatureStore.open(run.features) as store:
        assert store.record(f"{inner}/copy.jpg").gallery == "inside"
        assert store.record(f"{other}/red00.jpg").gallery == "other"


def test_an_interrupted_extraction_leaves_nothing_that_is_found(
    run_folder, other, monkeypatch, capsys
):
    run = Run.open(run_folder)
    write = FeatureStore.write

    def stopping(self, records, vectors, *more):
        write(self, records, vectors, *more)
        raise KeyboardInterrupt

    monkeypatch.setattr(FeatureStore, "write", stopping)
    with pytest.raises(KeyboardInterrupt):
        extract(run, folder=other, draw=False)
    monkeypatch.undo()
    with FeatureStore.open(run.features) as store:
        begun = len(store.records()) - 36
    assert begun > 0
    with Retriever(run) as retriever:
        assert len(retriever.gallery) == 36
        assert all(not id_.startswith("/") for id_ in retriever.search("red/03.jpg", 30).ids[0])
    assert main(["galleries", "--run", str(run_folder)]) == 0
    assert "unfinished" in capsys.readouterr().out
    done = extract(run, folder=other, draw=False)
    assert (done.stored, done.new) == (72, 36 - begun)
    assert {each.name: each.images for each in list_galleries(run)} == {"run": 36, "other": 36}


def test_an_interrupted_extraction_can_be_removed(run_folder, other, monkeypatch):
    run = Run.open(run_folder)
    monkeypatch.setattr(
        encoding.FeatureStore, "remove", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt)
    )
    with pytest.raises(KeyboardInterrupt):
        extract(run, folder=other, draw=False)
    monkeypatch.undo()
    assert main(["remove", "--run", str(run_folder), "--gallery", "other"]) == 0
    assert [each.name for each in list_galleries(run)] == ["run"]


def test_evaluation_needs_no_photos_where_every_vector_is_stored(
    config_file, photos, tmp_path, capsys
):
    data, folder = tmp_path / "photos", tmp_path / "run"
    shutil.copytree(photos, data)
    overrides = [f'data.path="{data}"', "training.epochs=0"]
    main(["train", "--config", str(config_file), "--run", str(folder), *overrides])
    run = Run.open(folder)
    extract(run, "test", draw=False)
    before = evaluate(run, "test")
    away = tmp_path / "away"
    shutil.move(data, away)
    assert evaluate(run, "test") == before
    assert evaluate(run, "test")["queries"] == 9
    # The training images are not stored: then the photos are needed.
    assert main(["evaluate", "--run", str(folder), "--gallery", "train"]) == 2
    assert str(data) in capsys.readouterr().err
    # A part of the photos gone is no smaller test.
    shutil.copytree(away, data)
    with FeatureStore.open(run.features) as store:
        gone = store.records("test")[0].path
    gone.unlink()
    assert evaluate(run, "test") == before


def test_nothing_is_drawn_again_where_nothing_has_changed(run_folder, photos, tmp_path, capsys):
    command = ["extract", "--run", str(run_folder), "--split", "all"]
    page = run_folder / "plots" / "embedding_map.html"
    assert main(command) == 0
    drawn = page.stat().st_mtime_ns
    capsys.readouterr()
    assert main(command) == 0
    output, errors = capsys.readouterr()
    assert output.startswith("0 new of 36 images") and str(page) in output
    assert "nothing has changed" in errors and page.stat().st_mtime_ns == drawn
    page.unlink()
    assert main([*command, "--no-map"]) == 0
    assert not page.exists()
    assert main(command) == 0
    drawn = page.stat().st_mtime_ns
    extra = Path(shutil.copytree(photos / "red", tmp_path / "extra"))
    assert main(["extract", "--run", str(run_folder), "--images", str(extra)]) == 0
    assert page.stat().st_mtime_ns != drawn


def test_an_added_picture_is_removed_with_its_file(run_folder, photos):
    run = Run.open(run_folder)
    with adding(run.added, (photos / "red" / "00.jpg").read_bytes() + b"\0", "red", {}) as path:
        pass
    id_ = f"added/{path.stem}"
    extract(run, "test", draw=False)
    assert main(["remove", "--run", str(run_folder), id_]) == 0
    assert [each for each in run.added.iterdir() if each.is_file()] == []
    extract(run, "test", draw=False)
    with FeatureStore.open(run.features) as store:
        assert store.record(id_) is None
