"""Every command and every Python block of the documentation runs, page by page, in order.

Each page starts from the same folder with photos of three classes, `photo.jpg`, `new.jpg`,
`pictures/`, `configs/`, `weights/`, and the run `runs/flowers`, trained on `flowers.yaml` and
extracted (conftest.py). What
differs from what a reader types, so that all of it takes about a minute:

- `flowers.yaml` is a small one; the pages' own YAML blocks are checked against the schema.
- `cbir train --config configs/digits.yaml` gets the overrides of QUICK, and where it does not start
  from released weights, those of SMALL too.
- `cbir train photos` gets those of QUICK and BRIEF.
- `--trials N` is `--trials 2`.
- `cbir serve` starts on a free port, which stands in for 8000 in what follows.
- `s3://` is a local server.
- `cbir` commands run in this process, unless the line needs a shell.

A block that cannot run has its reason in the line before: `<!-- not run: why -->`. Its `cbir`
commands are still parsed.
"""

from __future__ import annotations

import argparse
import importlib
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

import cbir_tf
from cbir_tf.commands.cli import VERBS, main
from cbir_tf.config import Config
from cbir_tf.config.parsing import describe_keys
from tests.docs.pages import PAGES, ROOT, SHELL, SHOWN, Block, blocks

RUNNABLE = [
    page
    for page in PAGES
    if any(each.language in (*SHELL, "python") and not each.reason for each in blocks(page))
]
ALL = [block for page in PAGES for block in blocks(page)]
CONFIGURATIONS = [block for block in ALL if block.language == "yaml" and not block.reason]


QUICK = ("plots.layout=pca", "plots.queries=3", "evaluation.bootstrap=100")
SMALL = (
    "data.image_size=16",
    "model.options={width: 4}",
    "training.epochs=1",
    "training.steps_per_epoch=4",
)
BRIEF = (
    "data.image_size=32",
    "training.epochs=1",
    "training.steps_per_epoch=1",
    "model={backbone: small_cnn, options: {width: 4}, weights: null, embedding_size: 8}",
)
GENERATED = re.compile(r"(?:configuration|command_line|python/\w+)\.md$")


def name(value: Path | Block) -> str:
    return str(value.relative_to(ROOT)) if isinstance(value, Path) else str(value)


def needs_shell(command: str) -> bool:
    return bool(re.search(r"[|&;<>]|\$\(", re.sub(r"'[^']*'|\"[^\"]*\"", "", command)))


class Reader:
    """Someone who types what a page shows."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.names: dict[str, object] = {"__name__": "page"}
        self.service: subprocess.Popen[str] | None = None
        self.address = ""

    def type_in(self, command: str) -> None:
        command = re.sub(r"--trials \d+", "--trials 2", command)
        first, *arguments = shlex.split(command, comments=True)
        if first == "cbir" and "configs/digits.yaml" in arguments:
            arguments += QUICK if "release:" in command else (*QUICK, *SMALL)
        if first == "cbir" and arguments[:2] == ["train", "photos"]:
            arguments += (*QUICK, *BRIEF)
        if first == "cbir" and arguments[0] == "serve":
            self.serve(arguments)
        elif first == "cbir" and not needs_shell(command):
            try:
                status = main(arguments)
            except SystemExit as end:  # --help, --version
                status = end.code
            assert not status, f"{command}: exit status {status}"
        else:
            self.shell(command)

    def shell(self, command: str) -> None:
        if self.address:
            command = re.sub(r"(https?://)?(localhost|127\.0\.0\.1):8000", self.address, command)
        done = subprocess.run(
            ["bash", "-c", command],
            cwd=self.folder,
            env=os.environ | {"PATH": f"{self.folder}/bin:{os.environ['PATH']}"},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, f"{command}: {done.stdout}{done.stderr}"
        assert '{"error"' not in done.stdout.replace(" ", ""), f"{command}: {done.stdout}"

    def serve(self, arguments: list[str]) -> None:
        self.close()
        if "--port" in arguments:
            at = arguments.index("--port")
            del arguments[at : at + 2]
        self.service = subprocess.Popen(
            [sys.executable, "-m", "cbir_tf", *arguments, "--port", "0"],
            cwd=self.folder,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        assert self.service.stdout is not None
        line = self.service.stdout.readline()
        assert line.startswith("http"), f"the service did not start: {line}"
        self.address = line.split()[0].rstrip("/")

    def close(self) -> None:
        if self.service is not None:
            self.service.terminate()
            self.service.wait(30)
            assert self.service.stdout is not None
            self.service.stdout.close()
            self.service = None


@pytest.fixture
def reader(page_folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Reader]:
    program = page_folder / "bin" / "cbir"
    program.parent.mkdir()
    program.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m cbir_tf "$@"\n')
    program.chmod(0o755)
    monkeypatch.chdir(page_folder)
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.setenv("CBIR_TF_CACHE", str(page_folder.parent / "cache"))  # of all pages
    for made in ("Makefile", "requirements.txt", "requirements-dev.txt", "requirements-annoy.txt"):
        (page_folder / made).symlink_to(ROOT / made)
    reader = Reader(page_folder)
    yield reader
    reader.close()


@pytest.mark.slow
@pytest.mark.parametrize("page", RUNNABLE, ids=name)
def test_everything_on_a_page_runs(page, reader, request):
    every = blocks(page)
    if any("s3://" in each.text and not each.reason for each in every if each.language in SHELL):
        upload(request.getfixturevalue("s3"), reader.folder)
    for block in every:
        if block.reason:
            continue
        if block.language == "csv":  # to be saved as pictures/manifest.csv
            (reader.folder / "pictures" / "manifest.csv").write_text(block.text)
        elif block.language == "python":
            exec(compile(block.text, str(block), "exec"), reader.names)
        elif block.language in SHELL:
            for command in block.commands():
                reader.type_in(command)


def upload(client: Any, folder: Path) -> None:
    """Put the photos, a photo and a configuration of them into the bucket of the local server."""
    text = (folder / "flowers.yaml").read_text()
    (folder / "flowers.yaml").write_text(text.replace("path: photos", "path: s3://pictures/photos"))
    for path in (
        *sorted((folder / "photos").rglob("*.jpg")),
        folder / "photo.jpg",
        folder / "flowers.yaml",
    ):
        key = path.relative_to(folder).as_posix()
        client.put_object(Bucket="pictures", Key=key, Body=path.read_bytes())


def test_the_readme_and_every_page_of_the_tasks_have_something_to_run():
    tasks = {page for page in PAGES if page.parent.name == "tasks"}
    assert len(tasks) >= 9
    assert {*tasks, ROOT / "README.md", ROOT / "docs" / "quickstart.md"} <= set(RUNNABLE)


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_every_block_names_its_language_and_none_is_merely_indented(page):
    assert all(each.language for each in blocks(page)), page
    text = re.sub(r"^( *)```.*?^\1```$", "", page.read_text(), flags=re.M | re.S)
    indented = re.findall(r"^\n {4,}(?:cbir|python|pip|make|curl) .*$", text, flags=re.M)
    assert not indented, f"{page}: put it into a fenced block: {indented}"


def test_a_block_that_is_not_run_has_a_reason():
    known = (*SHELL, *SHOWN, "python", "yaml")
    unknown = [str(each) for each in ALL if each.language not in known]
    assert not unknown, f"neither run nor known to be output: {unknown}"
    vague = [str(each) for each in ALL if each.reason is not None and len(each.reason) < 10]
    assert not vague


@pytest.mark.parametrize(
    "block", [b for b in ALL if b.language == "yaml" and not b.reason], ids=name
)
def test_configurations_are_valid(block):
    values = yaml.safe_load(block.text)
    values.setdefault("data", {"path": "photos"})
    Config.check(values)


@pytest.mark.parametrize("block", [b for b in ALL if b.language in SHELL], ids=name)
def test_commands_are_ones_that_exist(block, capsys):
    """Also where a block is not run."""
    makefile = (ROOT / "Makefile").read_text()
    for command in block.commands():
        first, *arguments = shlex.split(command, comments=True)
        if first == "make":
            for target in [each for each in arguments if re.fullmatch(r"[a-z]+", each)]:
                assert re.search(rf"^{target}:", makefile, flags=re.M), command
        if first != "cbir" or arguments[0].startswith("-"):
            continue
        assert arguments[0] in VERBS, command
        parser = argparse.ArgumentParser(exit_on_error=False)
        importlib.import_module(f"cbir_tf.commands.{arguments[0]}").add_arguments(parser)
        _, rest = parser.parse_known_args(arguments[1:])
        unknown = [each for each in rest if each.startswith("-")]
        assert not unknown, f"{command}: no option {unknown}"


def test_verbs_and_make_targets_in_the_prose_exist():
    makefile = (ROOT / "Makefile").read_text()
    assert "`make test`" in (ROOT / "README.md").read_text()
    for page in PAGES:
        text = page.read_text()
        for target in re.findall(r"`make ([a-z]+)", text):
            assert re.search(rf"^{target}:", makefile, flags=re.M), f"{page}: {target}"
        for verb in re.findall(r"`cbir ([a-z]+)", text):
            assert verb in VERBS, f"{page}: {verb}"


def test_keys_that_the_documentation_names_exist():
    known = set()
    for line in describe_keys(Config):
        key = re.sub(r"\[[^\]]*\]", "", line.partition(" = ")[0])
        parts = key.split(".")
        known |= {".".join(parts[:end]) for end in range(1, len(parts) + 1)}
    sections = {each.partition(".")[0] for each in known if "." in each}
    files = {"csv", "yaml", "keras", "json", "png", "py", "md", "db", "npz", "onnx", "html", "txt"}
    for page in PAGES:
        for text in re.findall(
            r"`([^`\n]+)`", re.sub(r"```.*?```", "", page.read_text(), flags=re.S)
        ):
            for key in re.findall(r"(?<![\w./-])([a-z_]+(?:\.[a-z_]+)+)(?=[=:\s]|$)", text):
                section, last = key.split(".")[0], key.split(".")[-1]
                if section in sections and last not in files:
                    assert key in known, f"{page.relative_to(ROOT)}: `{key}` is no key"


def test_paths_that_the_documentation_names_exist():
    for page in PAGES:
        for path in re.findall(
            r"`((?:cbir_tf|configs|tests|benchmarks|docs|notebooks)/[\w./-]*)`", page.read_text()
        ):
            assert (ROOT / path).exists(), f"{page.relative_to(ROOT)}: {path}"


def test_links_between_files_of_the_repository_resolve():
    for page in PAGES:
        for link in re.findall(r"\]\(([^)#\s]+)|src=\"([^\"]+)\"", page.read_text()):
            target = "".join(link)
            if re.match(r"\w+:", target) or GENERATED.search(target):
                continue  # the site's build checks links to generated pages
            assert (page.parent / target).exists(), f"{page.relative_to(ROOT)}: {target}"


def test_the_version_is_the_same_everywhere():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert citation["version"] == cbir_tf.__version__
    assert cbir_tf.__version__ in (ROOT / "CHANGELOG.md").read_text()


@pytest.mark.slow
def test_the_site_builds_without_a_warning(tmp_path):
    """`make docs`, with this environment in place of its own."""
    command = ["make", "docs", "-o", ".venv/development", f"RUN={sys.executable}"]
    built = subprocess.run(
        [*command, f"SITE={tmp_path / 'site'}"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert built.returncode == 0, built.stdout + built.stderr
    keys = (tmp_path / "site" / "reference" / "configuration" / "index.html").read_text()
    assert "loss[triplet_semi_hard].margin" in keys
    python = (tmp_path / "site" / "reference" / "python" / "losses" / "index.html").read_text()
    assert "TripletSemiHardLoss" in python
    # Offline: every page loads its parts from the site alone.
    for page in (tmp_path / "site").rglob("*.html"):
        loaded = re.findall(
            r"<(?:script|link|img)[^>]*(?:src|href)=\"?(https?:[^\s\">]+)", page.read_text()
        )
        assert all("github.io/cbir-tf" in each for each in loaded), (page, loaded)
        assert 'data-md-component="source"' not in page.read_text()  # would ask GitHub
