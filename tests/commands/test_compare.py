"""compare: trained runs in one table."""

from __future__ import annotations

import csv
import json
import shutil

import numpy as np
import pytest
from PIL import Image

from cbir_tf.commands.cli import main
from cbir_tf.evaluation import paired_bootstrap, per_query
from cbir_tf.features.store import FeatureStore

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def other_folder(tmp_path_factory, config_file):
    """A run on the same photos that was not trained, and nothing extracted."""
    folder = tmp_path_factory.mktemp("others") / "untrained"
    arguments = ["--config", str(config_file), "--run", str(folder), "training.epochs=0"]
    assert main(["train", *arguments, "model.embedding_size=4", "search.metric=euclidean"]) == 0
    return folder


def test_two_runs_in_one_table_page_and_plot(run_folder, other_folder, tmp_path, capsys):
    out = tmp_path / "comparison"
    command = ["compare", str(run_folder), str(other_folder), "--out", str(out)]
    assert main(command) == 0
    printed = capsys.readouterr().out
    document = json.loads((out / "comparison.json").read_text())
    rows = document["runs"]
    assert [(row["run"], row["dimensions"]) for row in rows] == [("run", 8), ("untrained", 4)]
    for row in rows:
        assert row["seconds_per_query"]["low"] <= row["seconds_per_query"]["median"]
        assert 0 < row["images_per_second"]["median"] < 1e6
    assert (out / "comparison.md").read_text().strip() in printed
    assert [row["run"] for row in csv.DictReader((out / "comparison.csv").open())] == [
        "run",
        "untrained",
    ]
    assert Image.open(out / "comparison.png").width > 1000
    page = (out / "comparison.html").read_text()
    assert "untrained" in page and "http" not in page
    assert all(str(path) in printed for path in out.iterdir())


def test_figures_are_those_of_evaluate_and_differences_those_of_the_stored_vectors(
    run_folder, other_folder, capsys
):
    folders = [run_folder, other_folder]
    assert main(["compare", *map(str, folders), "--json", "--k", "1,2"]) == 0
    rows = json.loads(capsys.readouterr().out)["runs"]
    by_query = []
    for folder, row, metric in zip(folders, rows, ("cosine", "euclidean"), strict=True):
        assert main(["evaluate", "--run", str(folder), "--json"]) == 0
        evaluated = json.loads(capsys.readouterr().out)
        for part in ("figures", "intervals", "queries", "left_out"):
            assert row[part] == evaluated[part], part
        with FeatureStore.open(folder / "features.db") as store:
            by_query.append(per_query(store.embeddings("test"), k=(1, 2), metric=metric))
    assert rows[0]["difference_to_first"] == {}
    expected = paired_bootstrap(by_query[1], by_query[0])
    assert rows[1]["difference_to_first"] == {key: vars(each) for key, each in expected.items()}
    difference = rows[1]["difference_to_first"]["map"]
    ours, theirs = (np.nanmean(values["map"]) for values in by_query)
    assert difference["mean"] == pytest.approx(theirs - ours)


def test_against_another_split_and_at_other_ranks(run_folder, other_folder, capsys):
    command = ["compare", str(run_folder), str(other_folder), "--gallery", "train", "--k", "4,99"]
    assert main([*command, "--json"]) == 0
    output = capsys.readouterr()
    document = json.loads(output.out)
    assert (document["protocol"], document["gallery_split"]) == ("queries against gallery", "train")
    assert {row["gallery"] for row in document["runs"]} == {18}
    figures = document["runs"][0]["figures"]
    assert "recall@4" in figures and "recall@99" not in figures
    assert "only 18 images to find" in output.err


def test_runs_of_other_queries_are_not_compared(run_folder, config_file, tmp_path, capsys):
    other = tmp_path / "other"
    arguments = ["--config", str(config_file), "--run", str(other), "training.epochs=0", "seed=5"]
    assert main(["train", *arguments]) == 0
    assert main(["compare", str(run_folder), str(other)]) == 2
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert f"{other}: has " in error
    assert "compare runs of the same data, split and seed" in error


def test_runs_of_other_photos_under_the_same_names_are_not_compared(
    trained_folder, run_folder, photos, tmp_path, capsys
):
    swapped = tmp_path / "photos"
    shutil.copytree(photos, swapped)
    for path in (swapped / "red").iterdir():
        Image.new("RGB", (40, 40), "red").save(path)
    config = run_folder / "config.yaml"
    config.write_text(config.read_text().replace(str(photos), str(swapped)))
    assert main(["compare", str(trained_folder), str(run_folder)]) == 2
    assert "another photo or class for 'red/" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["{run}", "{run}"], "a run is given twice"),
        (["{run}", "{run}/missing"], "no run there"),
        (["{run}", "--k", "0,1"], "ranks start at 1"),
        (["{run}", "--k", "one"], "ranks such as 1,5,10"),
    ],
)
def test_wrong_input_is_a_one_line_error_with_status_2(trained_folder, capsys, arguments, message):
    arguments = [each.format(run=trained_folder) for each in arguments]
    try:
        status = main(["compare", *arguments])
    except SystemExit as end:  # argparse's own
        status = end.code
    assert status == 2
    assert message in capsys.readouterr().err.strip().splitlines()[-1]


def test_a_damaged_model_is_called_damaged(run_folder, other_folder, capsys):
    (run_folder / "model.keras").write_bytes(b"half of a model")
    assert main(["compare", str(other_folder), str(run_folder)]) == 2
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert str(run_folder / "model.keras") in error and "another model" not in error
