"""The verb release, and the README's quick search with released weights."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from cbir_tf.commands.cli import main

ROOT = Path(__file__).parents[2]
DIGITS = ROOT / "weights" / "digits-1.0.0"


@pytest.fixture(autouse=True)
def _own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("CBIR_TF_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("CBIR_TF_REGISTRY", raising=False)


def last_line(text: str) -> str:
    return text.strip().splitlines()[-1]


def test_list_fetch_and_misspelt_names(tmp_path, capsys):
    assert main(["release", "list", "--json"]) == 0
    (listed,) = json.loads(capsys.readouterr().out)["releases"]
    assert (listed["name"], listed["licence"], listed["fetched"]) == ("digits", "Apache-2.0", False)
    assert main(["release", "fetch", "digits@1.0.0"]) == 0
    folder = Path(last_line(capsys.readouterr().out))
    assert folder.is_relative_to(tmp_path / "cache")
    assert {each.name for each in folder.iterdir()} == {each.name for each in DIGITS.iterdir()}
    assert main(["release", "list"]) == 0
    assert last_line(capsys.readouterr().out).split()[1:6:2] == [
        "digits@1.0.0",
        "Apache-2.0",
        "yes",
    ]
    for command, said in [
        (["fetch", "digist@1.0.0"], "release:digist@1.0.0: no release 'digist'; did you mean"),
        (["fetch", "digits@1.0"], "'1.0': not a valid release version"),
        (["verify", "digits@2.0.0"], "digits has no version 2.0.0; did you mean '1.0.0'?"),
        (["verify", str(tmp_path)], f"{tmp_path}: no release there"),
        (["list", "--registry", str(tmp_path / "none.yaml")], "lists no releases"),
        (["publish", str(tmp_path), "--to", str(tmp_path), "--registry", "r"], "no release there"),
        (["export", "--run", str(tmp_path)], "no run there"),
    ]:
        assert main(["release", *command]) == 2
        captured = capsys.readouterr()
        assert captured.out == "" and said in last_line(captured.err), command


@pytest.mark.slow
def test_verified_published_and_verified_from_there(s3, tmp_path, capsys):
    registry = ["--registry", str(tmp_path / "registry.yaml")]
    assert main(["release", "verify", str(DIGITS)]) == 0
    assert "| model.weights.h5 |" in capsys.readouterr().out
    there = ["release", "publish", str(DIGITS), "--to", "s3://pictures/releases", *registry]
    assert main(there) == 0
    assert "digits@1.0.0 is at s3://pictures/releases/digits-1.0.0" in capsys.readouterr().out
    shutil.rmtree(tmp_path / "cache")
    assert main(["release", "verify", "digits@1.0.0", *registry]) == 0
    # What does not verify is not sent.
    changed = shutil.copytree(DIGITS, tmp_path / "changed")
    (changed / "labels.json").write_text("[]")
    assert main(["release", "publish", str(changed), "--to", str(tmp_path / "to"), *registry]) == 2
    assert "labels.json is not the file that was released" in capsys.readouterr().err
    assert not (tmp_path / "to").exists()


@pytest.mark.slow
def test_the_quick_search_of_the_readme_has_the_figures_of_the_model_card(tmp_path, capsys):
    run = str(tmp_path / "ready")
    config = ["--config", str(ROOT / "configs" / "digits.yaml"), "--run", run]
    ready = ["model.weights=release:digits@1.0.0", "training.epochs=0", "plots.layout=pca"]
    assert main(["train", *config, *ready]) == 0
    assert "backbone and head loaded from release:digits@1.0.0" in capsys.readouterr().err
    assert main(["evaluate", "--run", run, "--json"]) == 0
    found = json.loads(last_line(capsys.readouterr().out))
    released = json.loads((DIGITS / "metrics.json").read_text())["test against test"]
    for name in ("recall@1", "map", "map_at_r"):
        assert found["figures"][name] == pytest.approx(released["figures"][name], abs=1e-3)
    card = (DIGITS / "README.md").read_text()
    assert f"| map_at_r    | {released['figures']['map_at_r']:.4f} |" in card
    assert main(["search", "--run", run, "digits/0007", "-k", "5", "--json"]) == 0
    neighbours = json.loads(last_line(capsys.readouterr().out))["neighbours"]
    assert [each["label"] for each in neighbours] == ["7"] * 5
