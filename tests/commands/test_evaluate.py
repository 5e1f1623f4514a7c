"""evaluate: files for trec_eval, levels of a hierarchy, and what it opens."""

from __future__ import annotations

import collections
import functools
import json

import numpy as np
import pytest

from cbir_tf import Retriever
from cbir_tf.commands.cli import main
from cbir_tf.evaluation.trec import read_trec_qrels, read_trec_run, trec_figures
from cbir_tf.features.store import FeatureStore

pytestmark = pytest.mark.slow

LEVELS = "class,temperature\nred,warm\ngreen,cold\nblue,cold\n"


@pytest.mark.parametrize("gallery", ["none", "train"])
def test_the_files_for_trec_eval_have_the_figures_that_are_printed(
    run_folder, tmp_path, capsys, gallery
):
    folder = tmp_path / "trec"
    command = ["evaluate", "--run", str(run_folder), "--gallery", gallery, "--json"]
    assert main([*command, "--trec", str(folder)]) == 0
    result = json.loads(capsys.readouterr().out)
    qrels, run = read_trec_qrels(folder / "qrels.txt"), read_trec_run(folder / "run.txt")
    ours = trec_figures(qrels, run, (1, 2))
    assert len(ours) == result["queries"]
    compared = result["figures"].keys() & next(iter(ours.values())).keys()
    assert {"map", "map_at_r", "ndcg@2", "recall@1"} <= compared
    for name in compared:
        mean = np.mean([figures[name] for figures in ours.values()])
        assert result["figures"][name] == pytest.approx(mean), name


def test_figures_at_the_levels_of_a_hierarchy(run_folder, tmp_path, capsys):
    table = tmp_path / "levels.csv"
    table.write_text(LEVELS)
    command = ["evaluate", "--run", str(run_folder), "--levels", str(table)]
    assert main([*command, "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    warmth = result["levels"]["temperature"]
    assert {name: each["queries"] for name, each in warmth["per_class"].items()} == {
        "cold": 6,
        "warm": 3,
    }
    assert warmth["figures"]["recall@1"] >= result["figures"]["recall@1"]
    kept = json.loads((run_folder / "metrics.json").read_text())
    assert kept["test against test"] == result
    assert main(command) == 0
    assert "by temperature: leave-one-out: 9 queries" in capsys.readouterr().out


def test_a_class_that_is_missing_at_a_level_is_a_one_line_error(run_folder, tmp_path, capsys):
    table = tmp_path / "levels.csv"
    table.write_text(LEVELS.replace("blue", "violet"))
    assert main(["evaluate", "--run", str(run_folder), "--levels", str(table)]) == 2
    assert "no name for the class 'blue'" in capsys.readouterr().err.strip().splitlines()[-1]


def test_everything_is_opened_and_read_once(run_folder, monkeypatch):
    calls: collections.Counter[str] = collections.Counter()

    def count(owner, name):
        original = getattr(owner, name)

        @functools.wraps(original)
        def counted(*arguments, **options):
            calls[name] += 1
            return original(*arguments, **options)

        monkeypatch.setattr(owner, name, counted)

    count(Retriever, "__init__")
    count(FeatureStore, "embeddings")
    count(__import__("cbir_tf.features.runtime").features.runtime, "open_encoder")
    count(__import__("cbir_tf.data.sources").data.sources, "all_images")
    command = ["evaluate", "--run", str(run_folder), "--gallery", "train"]
    assert main([*command, "--trec", str(run_folder / "trec")]) == 0
    assert calls == {"__init__": 1, "embeddings": 1, "open_encoder": 1, "all_images": 1}


@pytest.mark.parametrize("content", [b"", b"half of a model"])
def test_a_damaged_model_is_called_damaged(run_folder, capsys, content):
    (run_folder / "model.keras").write_bytes(content)
    assert main(["evaluate", "--run", str(run_folder)]) == 2
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert f"{run_folder / 'model.keras'}: " in error
    assert "another model" not in error
    assert "damaged" in error
