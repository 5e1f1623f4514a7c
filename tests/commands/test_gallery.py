"""A gallery that lives: extraction again and again over a folder that changes."""

from __future__ import annotations

import json
import multiprocessing
import os
import re
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from cbir_tf import Retriever
from cbir_tf.commands.cli import main
from cbir_tf.features.store import FeatureStore
from cbir_tf.storage.files import sha256

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]


def paint(path: Path, seed: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (40, 40, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)


def extract(run: Path, folder: Path, *more: str) -> int:
    return main(["extract", "--run", str(run), "--images", str(folder), *more])


def stored(run: Path, folder: Path) -> dict[str, tuple[str, bytes]]:
    """Digest and vector of the stored images of a folder, by file name."""
    with FeatureStore.open(run / "features.db") as store:
        embeddings, records = store.embeddings(), store.records()
    return {
        record.id.removeprefix(f"{folder}/"): (record.digest, vector.tobytes())
        for record, vector in zip(records, embeddings.vectors, strict=True)
        if record.id.startswith(f"{folder}/")
    }


def test_only_new_or_changed_images_are_encoded_and_missing_ones_removed(
    run_folder, tmp_path, capsys, monkeypatch
):
    from cbir_tf.features import runtime

    encoded: list[int] = []
    open_encoder = runtime.open_encoder

    def counting(*arguments):
        encoder = open_encoder(*arguments)
        return lambda pixels: encoded.append(len(pixels)) or encoder(pixels)

    monkeypatch.setattr(runtime, "open_encoder", counting)
    folder = tmp_path / "gallery"
    for number in range(6):
        paint(folder / f"{number}.png", number)
    assert extract(run_folder, folder) == 0
    before = stored(run_folder, folder)
    assert sum(encoded) == 6 and sorted(before) == [f"{each}.png" for each in range(6)]

    paint(folder / "1.png", 101)
    paint(folder / "deep" / "new.png", 7)
    (folder / "2.png").unlink()
    (folder / "3.png").write_bytes(b"no longer an image")
    encoded.clear()
    capsys.readouterr()
    assert extract(run_folder, folder, "--json") == 0
    printed = json.loads(capsys.readouterr().out)
    after = stored(run_folder, folder)
    assert sum(encoded) == 2
    assert sorted(after) == ["0.png", "1.png", "4.png", "5.png", "deep/new.png"]
    assert after["1.png"] != before["1.png"] and after["0.png"] == before["0.png"]
    assert printed["removed"] == [f"{folder}/2.png"]
    reason = "not a JPEG, PNG, WebP, BMP or GIF picture"
    assert printed["unreadable"] == {f"{folder}/3.png": reason}
    assert printed["stored"] == 36 + 5  # the run's own images stay

    (folder / "4.png").unlink()
    assert extract(run_folder, folder, "--keep-missing") == 0
    assert stored(run_folder, folder) == after


def test_an_emptied_folder_empties_nothing(run_folder, tmp_path, capsys):
    folder = tmp_path / "gallery"
    paint(folder / "1.png", 1)
    extract(run_folder, folder)
    before = stored(run_folder, folder)
    (folder / "1.png").unlink()
    assert extract(run_folder, folder) == 2
    assert "no images found" in capsys.readouterr().err
    assert stored(run_folder, folder) == before


def test_the_runs_own_photos_are_stored_once_with_their_labels(run_folder, photos, capsys):
    assert extract(run_folder, photos / "red", "--json") == 0
    assert json.loads(capsys.readouterr().out)["stored"] == 36
    with FeatureStore.open(run_folder / "features.db") as store:
        record = store.record("red/03.jpg")
        assert record.split in ("train", "validation")
        assert store.class_names[record.label] == "red"


def test_a_photo_more_or_less_leaves_the_others_in_their_splits(
    photos, config_file, tmp_path, capsys
):
    data, run = tmp_path / "photos", tmp_path / "run"
    shutil.copytree(photos, data)
    main(["train", "--config", str(config_file), "--run", str(run), f'data.path="{data}"'])
    main(["extract", "--run", str(run), "--split", "all"])
    with FeatureStore.open(run / "features.db") as store:
        before = {record.id: record.split for record in store.records()}
    shutil.copy(data / "red" / "00.jpg", data / "red" / "000.jpg")
    (data / "blue" / "05.jpg").unlink()
    capsys.readouterr()
    assert main(["extract", "--run", str(run), "--split", "all"]) == 0
    assert main(["evaluate", "--run", str(run)]) == 0
    errors = capsys.readouterr().err
    assert "new since training, left out, the first red/000.jpg" in errors
    assert "gone since training, the first blue/05.jpg" in errors
    with FeatureStore.open(run / "features.db") as store:
        assert {record.id: record.split for record in store.records()} == before


def test_a_moved_gallery_gets_new_paths_without_being_encoded(run_folder, tmp_path):
    """A run's own images go by their path below the data folder, wherever that is."""
    with FeatureStore.open(run_folder / "features.db") as store:
        store.describe(
            [
                record.__class__(**vars(record) | {"path": Path("/old/place")})
                for record in store.records()
            ]
        )
    assert main(["extract", "--run", str(run_folder), "--split", "all"]) == 0
    with FeatureStore.open(run_folder / "features.db") as store:
        assert all(record.path.is_file() for record in store.records())


def test_the_map_of_a_large_gallery_shows_a_sample_of_every_class_with_a_note(
    run_folder, monkeypatch, capsys
):
    from cbir_tf.retrieval import gallery_plots

    monkeypatch.setattr(gallery_plots, "MAPPED", 9)
    assert main(["extract", "--run", str(run_folder), "--split", "all"]) == 0
    assert "the embedding map shows 9 of 36 images" in capsys.readouterr().err
    page = (run_folder / "plots" / "embedding_map.html").read_text()
    assert "colours: 9 of 36 images, pca" in page
    shown = set(re.findall(r"(red|green|blue)/(\d\d\.jpg)", page))
    assert Counter(name for name, _ in shown) == {"red": 3, "green": 3, "blue": 3}


def test_search_chooses_among_what_meets_the_conditions(run_folder, tmp_path, capsys):
    folder = tmp_path / "garden"
    rows = ["path,label,year,by"]
    for number in range(8):
        paint(folder / f"{number}.png", number)
        rows.append(
            f"{number}.png,{['iris', 'red'][number % 2]},{2018 + number},{'AB'[number // 4]}"
        )
    (folder / "manifest.csv").write_text("\n".join(rows))
    assert extract(run_folder, folder) == 0
    capsys.readouterr()

    def found(*arguments: str) -> list[str]:
        command = ["search", "--run", str(run_folder), f"{folder}/1.png", "--json", "-k", "5"]
        assert main([*command, *arguments]) == 0
        return [Path(each["id"]).name for each in json.loads(capsys.readouterr().out)["neighbours"]]

    assert sorted(found("--where", "label=iris")) == ["0.png", "2.png", "4.png", "6.png"]
    assert sorted(found("--where", "year>=2020", "--where", "by=A")) == ["2.png", "3.png"]
    # A class that training knew keeps its number: 12 photos and 4 pictures.
    with FeatureStore.open(run_folder / "features.db") as store:
        assert len(store.select(["label=red"])) == 16
        assert store.class_names == ("blue", "green", "red", "iris")
    command = ["search", "--run", str(run_folder), f"{folder}/1.png", "--where", "year>2100"]
    assert main(command) == 2
    assert "no image meets" in capsys.readouterr().err


def test_re_ranking_searches_among_the_candidates_and_keeps_to_the_conditions(run_folder, capsys):
    command = ["search", "--run", str(run_folder), "red/03.jpg", "--json", "-k", "4"]

    def found(*arguments: str) -> list[str]:
        assert main([*command, *arguments]) == 0
        return [each["id"] for each in json.loads(capsys.readouterr().out)["neighbours"]]

    for method in ("query_expansion", "k_reciprocal"):
        ids = found("--re-ranking", method)
        assert len(set(ids)) == 4 and "red/03.jpg" not in ids
        assert all(id_.startswith("red/") for id_ in ids)
        blue = found("--re-ranking", method, "--where", "label=blue")
        assert len(blue) == 4 and all(id_.startswith("blue/") for id_ in blue)


def test_search_reports_no_match(run_folder, tmp_path, photos, capsys):
    command = ["search", "--run", str(run_folder)]
    assert main(["calibrate", "--run", str(run_folder), "--false-match-rate", "0.01"]) == 2
    assert "rates from 0.1 up" in capsys.readouterr().err
    assert main(["calibrate", "--run", str(run_folder), "--false-match-rate", "0.2"]) == 0
    assert "a match is nearer than" in capsys.readouterr().out
    assert main([*command, str(photos / "red" / "01.jpg")]) == 0
    assert capsys.readouterr().out.startswith("match: 10.0% of")
    unknown = tmp_path / "unknown.png"
    paint(unknown, 5)
    assert main([*command, str(unknown), "--json"]) == 0
    match = json.loads(capsys.readouterr().out)["match"]
    assert match["found"] == (match["false_match_rate"] <= 0.2)
    assert main([*command, str(unknown), "--re-ranking", "k_reciprocal", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["match"] is None


def test_a_faiss_index_is_saved_used_and_fitted_again_when_stale_or_damaged(run_folder, tmp_path):
    config = run_folder / "config.yaml"
    config.write_text(config.read_text().replace("index: nearest_neighbors", "index: faiss"))
    assert main(["extract", "--run", str(run_folder), "--split", "all"]) == 0
    expected = Retriever.open(run_folder).search("red/03.jpg", 5)
    saved = run_folder / "index" / "index.json"
    assert json.loads(saved.read_text())["index"] == "faiss"
    saved.write_text(saved.read_text().replace('"count": 36', '"count": 35'))
    assert Retriever.open(run_folder).search("red/03.jpg", 5).ids.tolist() == expected.ids.tolist()
    saved.write_text("{")
    assert Retriever.open(run_folder).search("red/03.jpg", 5).ids.tolist() == expected.ids.tolist()


def _extract_quietly(run: str, folder: str) -> None:
    sys.stdout = sys.stderr = open(os.devnull, "w")  # noqa: SIM115
    os._exit(extract(Path(run), Path(folder)))


def test_killed_at_any_moment_nothing_is_lost_doubled_or_half_written(run_folder, tmp_path):
    """20 kills at random moments, the folder changing in between; then the store is as if new."""
    random = np.random.default_rng(0)
    folder = tmp_path / "gallery"
    for number in range(60):
        paint(folder / f"{number}.png", number)
    # Children are forked from a process that has everything imported and has run nothing.
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(
        [
            "tensorflow",
            "keras",
            "cbir_tf.retrieval.retriever",
            "cbir_tf.retrieval.gallery_plots",
            __name__,
        ]
    )

    def child() -> multiprocessing.process.BaseProcess:
        process = context.Process(target=_extract_quietly, args=(str(run_folder), str(folder)))
        process.start()
        return process

    whole = child()
    start = time.monotonic()
    whole.join(120)
    seconds = time.monotonic() - start
    assert whole.exitcode == 0
    for turn in range(20):
        numbers = random.choice(200, 12, replace=False)
        for number in numbers[:9]:
            paint(folder / f"{number}.png", 1000 * turn + int(number))
        for number in numbers[9:]:
            (folder / f"{number}.png").unlink(missing_ok=True)
        process = child()
        time.sleep(random.uniform(0, seconds))
        if process.is_alive():
            os.kill(process.pid, signal.SIGKILL)
        process.join(60)
        with sqlite3.connect(run_folder / "features.db") as connection:
            assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
            sizes = connection.execute("SELECT DISTINCT length(vector) FROM features").fetchall()
            assert sizes == [(4 * 8,)]
        connection.close()
    last = child()
    last.join(120)
    assert last.exitcode == 0
    here = stored(run_folder, folder)
    files = {path.name: sha256(path) for path in folder.iterdir()}
    assert {name: digest for name, (digest, _) in here.items()} == files
    again = Path(shutil.copytree(run_folder, tmp_path / "again"))
    (again / "features.db").unlink()
    assert extract(again, folder) == 0
    fresh = stored(again, folder)
    for name, (_, vector) in here.items():
        ours, theirs = np.frombuffer(vector, np.float32), np.frombuffer(fresh[name][1], np.float32)
        np.testing.assert_allclose(ours, theirs, atol=1e-5)


def test_watching_keeps_in_step_with_the_folder_until_interrupted(run_folder, tmp_path):
    folder = tmp_path / "gallery"
    for number in range(3):
        paint(folder / f"{number}.png", number)
    command = [sys.executable, "extract.py", "--run", str(run_folder), "--images", str(folder)]

    def becomes(*names: str) -> bool:
        deadline = time.monotonic() + 60
        while set(stored(run_folder, folder)) != set(names) and time.monotonic() < deadline:
            time.sleep(0.2)
        return set(stored(run_folder, folder)) == set(names)

    with subprocess.Popen(
        [*command, "--watch", "--no-map"],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        bufsize=1,
    ) as process:
        try:
            while "watching" not in process.stderr.readline():
                assert process.poll() is None
            time.sleep(1)
            (folder / "1.png").unlink()
            assert becomes("0.png", "2.png")
            # More than half of the images gone at once is no deletion; what is new is found.
            (folder / "0.png").unlink()
            shutil.move(folder / "2.png", tmp_path / "2.png")
            paint(folder / "4.png", 4)
            assert becomes("0.png", "2.png", "4.png")
        finally:
            process.send_signal(signal.SIGINT)
            _, errors = process.communicate(timeout=60)
    assert "Traceback" not in errors
    assert process.returncode == 0
    assert "no longer watching" in errors and "--remove-missing" in errors
