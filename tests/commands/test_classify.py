"""classify: any run's vectors, one report."""

from __future__ import annotations

import json

import pytest

from cbir_tf.commands.cli import main

pytestmark = pytest.mark.slow


def test_the_chosen_classifiers_are_in_one_report(run_folder, capsys):
    command = ["classify", "--run", str(run_folder), "--classifiers", "lr,knn,lr"]
    assert main([*command, "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert [row["name"] for row in result["classifiers"]] == ["lr", "knn"]
    assert (result["training"], result["test"], result["dimensions"]) == (18, 9, 8)
    for row in result["classifiers"]:
        assert row["accuracy"] > 0.6
        assert row["interval"][0] <= row["accuracy"] <= row["interval"][1]
    assert json.loads((run_folder / "classification.json").read_text()) == result
    assert main(command) == 0
    printed = capsys.readouterr().out
    assert "| logistic regression " in printed
    assert str(run_folder / "classification.json") in printed


def test_what_was_not_extracted_is(run_folder, capsys):
    (run_folder / "features.db").unlink()
    command = ["classify", "--run", str(run_folder), "--classifiers", "nb", "--json"]
    assert main(command) == 0
    assert json.loads(capsys.readouterr().out)["test"] == 9


def test_an_unknown_classifier_is_a_one_line_error(run_folder, capsys):
    assert main(["classify", "--run", str(run_folder), "--classifiers", "lr,kn"]) == 2
    assert "--classifiers: no 'kn'; did you mean 'knn'?" in capsys.readouterr().err
