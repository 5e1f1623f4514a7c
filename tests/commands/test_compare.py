"""compare: two trained runs in one table."""

from __future__ import annotations

import csv
import json
import re

import pytest
from PIL import Image

from cbir_tf.commands.cli import main

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def other_folder(tmp_path_factory, config_file):
    """A run on the same photos that was not trained."""
    folder = tmp_path_factory.mktemp("others") / "untrained"
    arguments = ["--config", str(config_file), "--run", str(folder), "training.epochs=0"]
    assert main(["train", *arguments, "model.embedding_size=4"]) == 0
    return folder


def test_two_runs_in_one_table_page_and_plot(run_folder, other_folder, tmp_path, capsys):
    out = tmp_path / "comparison"
    command = ["compare", str(run_folder), str(other_folder), "--out", str(out)]
    assert main(command) == 0
    table = capsys.readouterr().out
    assert table.splitlines()[0].split() == ["|", "run", "|", "run", "|", "untrained", "|"]
    assert re.search(r"\| dimensions +\| +8 \| +4 \|", table)
    rows = json.loads((out / "comparison.json").read_text())
    assert [row["run"] for row in rows] == ["run", "untrained"]
    first, second = (row["figures"]["map"] for row in rows)
    difference = rows[1]["difference_to_first"]["map"]
    assert difference["mean"] == pytest.approx(second - first)
    assert difference["low"] <= difference["mean"] <= difference["high"]
    assert all(row["seconds_per_query"] > 0 and row["images_per_second"] > 0 for row in rows)
    assert len(list(csv.DictReader((out / "comparison.csv").open()))) == 2
    assert Image.open(out / "comparison.png").width > 500
    page = (out / "comparison.html").read_text()
    assert "untrained" in page and "http" not in page
    assert (out / "comparison.md").read_text().strip() == table.strip()


def test_runs_of_other_queries_are_not_compared(run_folder, config_file, tmp_path, capsys):
    other = tmp_path / "other"
    arguments = ["--config", str(config_file), "--run", str(other), "training.epochs=0", "seed=5"]
    assert main(["train", *arguments]) == 0
    assert main(["compare", str(run_folder), str(other)]) == 2
    assert "compare runs of the same data, split and seed" in capsys.readouterr().err
