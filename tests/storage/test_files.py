"""Files are there whole or not at all."""

from __future__ import annotations

import hashlib
import subprocess
import sys
import textwrap

import pytest

from cbir_tf.errors import UserError
from cbir_tf.storage.files import replacing, sha256, write_text


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path):
    path = tmp_path / "value.json"
    write_text(path, "old")
    with pytest.raises(RuntimeError), replacing(path) as temporary:
        temporary.write_text("half")
        raise RuntimeError
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_the_temporary_file_keeps_the_suffix(tmp_path):
    for name in ("model.keras", "best.weights.h5", "map.png"):
        with replacing(tmp_path / name) as temporary:
            assert temporary.name.endswith(name.partition(".")[2])
            temporary.write_bytes(b"x")


def test_a_full_disk_is_one_line_and_the_old_file_stays(tmp_path):
    # A file-size limit makes the kernel refuse the write as a full disk does.
    path = tmp_path / "value.txt"
    write_text(path, "old")
    code = f"""
        import resource, signal, sys
        from pathlib import Path
        from cbir_tf.errors import UserError
        from cbir_tf.storage.files import write_text
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
        try:
            write_text(Path({str(path)!r}), "x" * 10_000)
        except UserError as error:
            sys.exit(str(error))
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True, check=False
    )
    assert "cannot be written" in done.stderr
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_place_that_is_no_folder_is_one_line(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot be written"):
        write_text(tmp_path / "file" / "inner.txt", "x")


def test_sha256_is_that_of_hashlib(tmp_path):
    content = bytes(range(256)) * 1000
    (tmp_path / "content").write_bytes(content)
    expected = hashlib.sha256(content).hexdigest()
    assert sha256(content) == sha256(tmp_path / "content") == expected
