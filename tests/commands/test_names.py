"""File names that are not UTF-8: every verb goes on, or names the file in one line."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from cbir_tf.storage.files import write_text
from cbir_tf.training.from_config import load_config

ROOT = Path(__file__).parents[2]
LATIN_1 = os.fsdecode(b"caf\xe9")


def cbir(*arguments: object, encoding: str) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(
        [sys.executable, "-m", "cbir_tf", *map(str, arguments)],
        cwd=ROOT,
        env=os.environ | {"PYTHONIOENCODING": encoding},
        capture_output=True,
        check=False,
    )


@pytest.fixture(scope="module")
def folder(tmp_path_factory, photos) -> Path:
    """A folder of that name with two copies of a picture, one of a name that ASCII lacks."""
    folder = tmp_path_factory.mktemp("names") / LATIN_1
    folder.mkdir()
    picture = next(photos.rglob("*.jpg"))
    for name in ("ä.jpg", "b.jpg"):
        shutil.copy(picture, folder / name)
    return folder


@pytest.mark.parametrize("encoding", ["utf-8", "ascii", "latin-1"])
def test_results_are_printed_whatever_the_encoding_of_the_output(folder, encoding):
    done = cbir("duplicates", "--images", folder, "--json", encoding=encoding)
    assert done.returncode == 0, done.stderr
    (group,) = json.loads(done.stdout.decode(encoding))["groups"]
    assert {Path(each["path"]) for each in group} == {folder / "ä.jpg", folder / "b.jpg"}
    missing = cbir("duplicates", "--images", folder / "none", encoding=encoding)
    assert missing.returncode == 2
    (line,) = missing.stderr.splitlines()
    assert line.startswith(b"error: ") and rb"caf\udce9/none" in line


def test_text_with_such_a_name_is_written_as_json_that_can_be_read(tmp_path):
    write_text(tmp_path / "a.json", json.dumps({"path": f"ä/{LATIN_1}"}, ensure_ascii=False))
    assert json.loads((tmp_path / "a.json").read_bytes()) == {"path": f"ä/{LATIN_1}"}


def test_a_path_of_the_configuration_may_have_such_a_name(folder, tmp_path):
    config = load_config({"data": {"source": "folder"}}, [f"data.path={folder}"])
    (tmp_path / "config.yaml").write_text(config.dump(), encoding="utf-8")
    assert load_config(tmp_path / "config.yaml").data.path == config.data.path == folder


def test_a_name_another_library_refuses_is_named_in_one_line(tmp_path, capsys, monkeypatch):
    from cbir_tf.commands import cli, duplicates

    def refuse(arguments: object) -> None:
        LATIN_1.encode()

    monkeypatch.setattr(duplicates, "main", refuse)
    assert cli.main(["duplicates", "--images", str(tmp_path)]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "not a name in UTF-8; rename" in line
