"""The notebooks run from the first cell to the last, as they are."""

from __future__ import annotations

from pathlib import Path

import pytest

nbclient = pytest.importorskip("nbclient")
nbformat = pytest.importorskip("nbformat")

ROOT = Path(__file__).parents[2]


@pytest.mark.slow
def test_from_photos_to_search(tmp_path, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.setenv("JUPYTER_PLATFORM_DIRS", "1")
    book = nbformat.read(ROOT / "notebooks/photos_to_search.ipynb", as_version=4)
    cells = [each for each in book.cells if each.cell_type == "code"]
    assert len(cells) == 10 and not any(each.outputs for each in cells)
    nbclient.NotebookClient(
        book, timeout=300, kernel_name="python3", resources={"metadata": {"path": str(tmp_path)}}
    ).execute()
    printed = ["".join(each.get("text", "") for each in cell.outputs) for cell in cells]
    assert printed[0].split() == list("0123456789")
    query, *found = printed[5].splitlines()
    label = query.split()[1].split("/")[0]
    assert len(found) == 5 and found[0].split()[1].startswith(f"{label}/")
    assert "recall@1" in printed[7]
    # The service finds what the retriever found.
    assert float(printed[9].split()[1]) == pytest.approx(float(found[0].split()[0]), abs=1e-4)
    pictures = [each for cell in (cells[6], cells[8]) for each in cell.outputs if "data" in each]
    assert sum("image/png" in each.data for each in pictures) == 2
