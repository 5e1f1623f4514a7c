"""cbir inspect: mistakes planted in a run are found, and shown."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path

import pytest

from cbir_tf.commands.cli import main
from cbir_tf.features.store import FeatureStore


@pytest.fixture
def flawed(run_folder: Path) -> Path:
    """A run in which one image has the label of another class, and a file has two labels."""
    with FeatureStore.open(run_folder / "features.db") as store:
        records = store.records()
        by_class = {
            name: [each for each in records if each.label == label]
            for label, name in enumerate(store.class_names)
        }
        first, second, third = by_class.values()
        store.describe([replace(first[0], label=second[0].label)])
        known = store.embeddings()
        vector = known.vectors[known.ids == third[0].id]
        store.write([replace(third[0], digest=second[1].digest)], vector)
    return run_folder


def test_planted_mistakes_are_found(flawed, capsys):
    assert main(["inspect", "--run", str(flawed), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    with FeatureStore.open(flawed / "features.db") as store:
        records = {each.id: each for each in store.records()}
        names = store.class_names
    assert found["images"] == len(records)
    (wrong,) = found["wrong_labels"]
    assert wrong["label"] == names[records[wrong["id"]].label]
    assert wrong["id"].split("/")[0] == wrong["suggested"]  # its folder is its true class
    assert wrong["share"] >= 0.8
    (group,) = found["two_labels"]
    assert {name: len(ids) for name, ids in group.items()} == dict.fromkeys(group, 1)
    assert len(group) == 2
    assert found["unlabelled"] == 0


def test_the_page_shows_the_doubtful_image_and_its_neighbours(flawed, capsys):
    assert main(["inspect", "--run", str(flawed)]) == 0
    printed = capsys.readouterr().out.splitlines()
    assert printed[-1] == str(flawed / "plots" / "inspection.html")
    (wrong,) = [line.split()[2] for line in printed if line.startswith("wrong label?")]
    page = Path(printed[-1]).read_text()
    article = next(each for each in page.split("<article>") if wrong in each)
    assert article.count("data:image/jpeg;base64,") == 6
    assert not re.search(r"(src|href)=\"(?!data:)", page)  # needs no other file


def test_without_mistakes_nothing_is_reported(run_folder, capsys):
    assert main(["inspect", "--run", str(run_folder), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["wrong_labels"], found["two_labels"]) == ([], [])


def test_small_classes_are_named_and_not_judged(flawed, capsys):
    assert main(["inspect", "--run", str(flawed), "-k", "20", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert len(found["small_classes"]) == 3
    assert found["wrong_labels"] == []


@pytest.mark.parametrize("arguments", [["-k", "0"], ["--share", "0"], ["--share", "1.5"]])
def test_impossible_arguments_are_refused(run_folder, capsys, arguments):
    assert main(["inspect", "--run", str(run_folder), *arguments]) == 2
    assert "--share" in capsys.readouterr().err
