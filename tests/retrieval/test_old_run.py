"""A run that version 0.1.0 made opens, is searched and gives the answers it gave then."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from cbir_tf import Retriever, Run
from cbir_tf.commands.cli import main

OLD = Path(__file__).with_name("run_0_1_0")
EXPECTED = json.loads((OLD / "expected.json").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def old_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return Path(shutil.copytree(OLD, tmp_path_factory.mktemp("old") / "run"))


@pytest.mark.parametrize("name", EXPECTED)
def test_a_search_gives_what_it_gave(old_run, name, capsys):
    case = EXPECTED[name]
    query = case["answer"]["query"]
    assert (
        main(["search", "--run", str(old_run), query, "-k", "5", "--json", *case["arguments"]]) == 0
    )
    now = json.loads(capsys.readouterr().out)
    then = case["answer"]
    assert [each["id"] for each in now["neighbours"]] == [each["id"] for each in then["neighbours"]]
    assert [each["label"] for each in now["neighbours"]] == [
        each["label"] for each in then["neighbours"]
    ]
    np.testing.assert_allclose(
        [each["distance"] for each in now["neighbours"]],
        [each["distance"] for each in then["neighbours"]],
        atol=2e-6,
    )
    assert now["search"] == then["search"]
    assert now["match"] == pytest.approx(then["match"]) if then["match"] else now["match"] is None
    assert (now["class"] or {}).get("name") == (then["class"] or {}).get("name")


def test_its_figures_are_measured_again_to_the_same_values(old_run):
    from cbir_tf import evaluate

    kept = json.loads((OLD / "metrics.json").read_text(encoding="utf-8"))
    then = kept["test against test"]
    now = evaluate(old_run)
    assert now["figures"] == pytest.approx(then["figures"], abs=1e-9)
    assert now["queries"] == then["queries"] and now["left_out"] == then["left_out"]


def test_the_encoder_of_today_makes_the_vectors_of_then(old_run):
    run = Run.open(old_run)
    with Retriever(run) as retriever:
        ids = retriever.embeddings.ids[:5]
        encoded = retriever.encode([retriever.source(str(id_)) for id_ in ids])
        np.testing.assert_allclose(encoded, retriever.embeddings.vectors[:5], atol=1e-3)
