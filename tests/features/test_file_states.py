"""Files are read again only where size or modification time differ."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import pytest

from cbir_tf.features import file_states
from cbir_tf.features.file_states import FileStates
from cbir_tf.features.store import FeatureStore
from cbir_tf.retrieval.extraction import extract

OLD = 1_600_000_000_000_000_000


@pytest.fixture
def file(tmp_path) -> Path:
    path = tmp_path / "a.jpg"
    path.write_bytes(b"first")
    os.utime(path, ns=(OLD, OLD))
    return path


def sha(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def test_a_known_file_is_not_read(file, monkeypatch):
    first = FileStates()
    assert first.digest(file) == sha(b"first")
    monkeypatch.setattr(file_states, "sha256", lambda path: pytest.fail("it was read"))
    again = FileStates(first.fresh)
    assert again.digest(file) == sha(b"first")
    assert again.fresh == {}


@pytest.mark.parametrize(
    ("content", "time"),
    [(b"longer", OLD), (b"other", OLD + 1), (b"other", OLD - 10**9), (b"", OLD)],
)
def test_another_size_or_time_has_it_read(file, content, time):
    known = FileStates()
    known.digest(file)
    file.write_bytes(content)
    os.utime(file, ns=(time, time))
    again = FileStates(known.fresh)
    assert again.digest(file) == sha(content)
    assert list(again.fresh) == list(known.fresh)


def test_a_file_written_a_moment_ago_is_not_trusted(file):
    os.utime(file)
    states = FileStates()
    assert states.digest(file) == sha(b"first")
    assert states.fresh == {}


def test_a_file_that_is_not_there_is_an_oserror(tmp_path):
    with pytest.raises(OSError):
        FileStates().digest(tmp_path / "nothing")


def test_an_extraction_reads_unchanged_files_once(run_folder, photos, monkeypatch):
    for path in photos.rglob("*.jpg"):
        os.utime(path, ns=(OLD, OLD))
    extract(run_folder, folder=photos, draw=False)
    with FeatureStore.open(run_folder / "features.db") as store:
        assert len(store.file_states()) == len(list(photos.rglob("*.jpg")))
    monkeypatch.setattr(file_states, "sha256", lambda path: pytest.fail(f"{path} was read"))
    assert extract(run_folder, folder=photos, draw=False).new == 0
    assert extract(run_folder, "all", draw=False).new == 0
