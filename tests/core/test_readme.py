"""The commands and code of the README work unchanged."""

from __future__ import annotations

import re
from pathlib import Path

import yaml

from cbir_tf import Config
from cbir_tf.commands.cli import VERBS

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README, flags=re.DOTALL)


def test_the_configurations_are_valid():
    for text in blocks("yaml"):
        Config.check(yaml.safe_load(text))


def test_the_python_that_needs_no_run_runs():
    programs = [text for text in blocks("python") if "Retriever.open" not in text]
    assert programs
    for text in programs:
        exec(compile(text, "README.md", "exec"), {})


def test_verbs_files_and_make_targets_exist():
    makefile = (ROOT / "Makefile").read_text()
    for target in re.findall(r"(?:`|    )make (\w+)", README):
        assert re.search(rf"^{target}:", makefile, flags=re.MULTILINE), target
    for verb in re.findall(r"cbir (\w+)", README):
        assert verb in VERBS
    for path in re.findall(r'(?:\]\(|src=")([\w./-]+)', README):
        assert (ROOT / path).exists(), path
