"""The search section: one distance and one space for search, calibration and figures."""

from __future__ import annotations

import json
import logging
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image

from cbir_tf import Retriever
from cbir_tf.commands.cli import main
from cbir_tf.evaluation import per_query
from cbir_tf.features.store import FeatureStore
from cbir_tf.retrieval.calibration import Calibration
from cbir_tf.search.annoy_back_end import AnnoyBackEnd
from cbir_tf.search.faiss_back_end import FaissBackEnd
from cbir_tf.types import Embeddings

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
QUERY = "red/03.jpg"


def configure(run: Path, **search) -> None:
    path = run / "config.yaml"
    values = yaml.safe_load(path.read_text())
    values["search"] |= search
    path.write_text(yaml.safe_dump(values))


def extract(run: Path, *more: str) -> None:
    assert main(["extract", "--run", str(run), *(more or ("--split", "all"))]) == 0


@pytest.fixture
def projected(run_folder) -> Path:
    """A run that searches three components."""
    configure(run_folder, pca=3)
    extract(run_folder)
    return run_folder


def stored(run: Path) -> Embeddings:
    with FeatureStore.open(run / "features.db") as store:
        return store.embeddings()


def naive_space(run: Path, components: int, whiten: float = 0):
    """Mean and axes by which vectors go into the space searched."""
    vectors = stored(run).vectors.astype(np.float64)
    mean = vectors.mean(axis=0)
    values, axes = np.linalg.eigh(np.cov(vectors, rowvar=False))
    order = np.argsort(-values)[:components]
    return mean, axes[:, order] / values[order] ** (whiten / 2)


def cosine_ranking(query: np.ndarray, gallery: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    lengths = np.linalg.norm(gallery, axis=1) * np.linalg.norm(query)
    distances = 1 - gallery @ query / lengths
    return np.argsort(distances), np.sort(distances)


@pytest.mark.parametrize(("components", "whiten"), [(3, 0), (3, 0.3), (None, True)])
def test_queries_of_every_kind_are_searched_in_the_space_of_the_components(
    run_folder, photos, components, whiten
):
    configure(run_folder, pca=components, whiten=whiten)
    extract(run_folder)
    retriever = Retriever.open(run_folder)
    mean, axes = naive_space(run_folder, components or 8, whiten)
    everything = stored(run_folder)
    gallery = (everything.vectors - mean) @ axes
    assert retriever.embeddings.vectors.shape == gallery.shape
    row = everything.ids.tolist().index(QUERY)
    order, distances = cosine_ranking(gallery[row], gallery)
    expected = everything.ids[order]

    by_id = retriever.search(QUERY, 5)
    assert by_id.ids[0].tolist() == expected[1:6].tolist()
    np.testing.assert_allclose(by_id.distances[0], distances[1:6], atol=1e-4)
    for query in (everything.vectors[row], (photos / QUERY).read_bytes()):
        found = retriever.search(query, 6)
        assert found.ids[0].tolist() == expected[:6].tolist()
        np.testing.assert_allclose(found.distances[0], distances[:6], atol=1e-3)


@pytest.mark.parametrize("re_ranking", ["query_expansion", "k_reciprocal"])
def test_re_ranking_finds_the_same_class_among_whitened_vectors(projected, re_ranking):
    configure(projected, re_ranking=re_ranking)
    found = Retriever.open(projected).search(QUERY, 4)
    assert all(id_.startswith("red/") for id_ in found.ids[0])


def test_calibration_evaluation_and_comparison_see_the_same_vectors(projected, capsys):
    assert main(["calibrate", "--run", str(projected), "--false-match-rate", "0.2"]) == 0
    retriever = Retriever.open(projected)
    ids = retriever.embeddings.ids

    def of_splits(*splits: str) -> Embeddings:
        chosen = [retriever.store.select(split=split) for split in splits]
        return retriever.embeddings.take(np.isin(ids, np.concatenate(chosen)))

    expected = Calibration.measure(
        of_splits("validation"), of_splits("train", "validation"), "cosine", 0.2
    )
    assert retriever.gallery.calibration.threshold == expected.threshold
    assert retriever.gallery.calibration.out_of_gallery == expected.out_of_gallery
    assert main(["search", "--run", str(projected), QUERY, "--json"]) == 0

    figures = per_query(of_splits("test"), k=(1, 2), metric="cosine")
    capsys.readouterr()
    assert main(["evaluate", "--run", str(projected), "--json"]) == 0
    evaluated = json.loads(capsys.readouterr().out)["figures"]
    assert evaluated["map"] == pytest.approx(np.nanmean(figures["map"]))
    assert main(["compare", str(projected), "--json"]) == 0
    row = json.loads(capsys.readouterr().out)["runs"][0]
    assert row["dimensions"] == 3
    assert row["figures"]["map"] == evaluated["map"]
    assert main(["compare", str(projected)]) == 0
    table = capsys.readouterr().out
    assert next(line for line in table.splitlines() if "dimensions searched" in line).count(" 3 ")


@pytest.fixture
def fits(monkeypatch) -> list[int]:
    """Lengths of the galleries that indexes are fitted to."""
    fitted: list[int] = []

    def count(back_end):
        fit = back_end.fit

        def counting(self, vectors, metric):
            fitted.append(len(vectors))
            fit(self, vectors, metric)

        monkeypatch.setattr(back_end, "fit", counting)

    count(FaissBackEnd)
    count(AnnoyBackEnd)
    return fitted


def test_a_saved_index_is_reused_only_with_its_whitening(projected, fits):
    configure(projected, index="faiss")
    extract(projected)
    assert fits.pop() == 36
    expected = Retriever.open(projected).search(QUERY, 5)
    assert not fits
    file = projected / "index" / "projection.npz"
    intact = file.read_bytes()

    for change in (
        lambda: configure(projected, pca=4),
        lambda: configure(projected, pca=3, whiten=True),
        lambda: configure(projected, pca=None, whiten=False),
    ):
        change()
        assert len(Retriever.open(projected).gallery) == 36
        assert fits.pop() == 36
    configure(projected, pca=3)
    assert Retriever.open(projected).search(QUERY, 5).ids.tolist() == expected.ids.tolist()
    assert not fits

    for content in (intact[: len(intact) // 2], None):
        file.unlink()
        if content is not None:
            file.write_bytes(content)
        # Fitted again to the same vectors, the whitening is the same, and the index fits it.
        assert Retriever.open(projected).search(QUERY, 5).ids.tolist() == expected.ids.tolist()
        assert not fits

    configure(projected, whiten=True)
    other = Retriever.open(projected)
    other.gallery.whitening.save(projected / "index")
    assert len(other.gallery) == 36
    assert fits.pop() == 36
    configure(projected, whiten=False)
    assert Retriever.open(projected).search(QUERY, 5).ids.tolist() == expected.ids.tolist()


def test_a_new_process_uses_the_saved_index_and_whitening(projected):
    configure(projected, index="faiss")
    extract(projected)
    command = [sys.executable, "search.py", "--run", str(projected), QUERY, "--json"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    assert "fitting the" not in done.stderr
    here = Retriever.open(projected).search(QUERY, 5)
    there = [each["id"] for each in json.loads(done.stdout)["neighbours"]]
    assert there == here.ids[0].tolist()


def test_whitening_is_of_the_runs_own_images_and_changes_with_them(
    projected, tmp_path, caplog, fits
):
    configure(projected, index="faiss")
    assert main(["calibrate", "--run", str(projected), "--false-match-rate", "0.2"]) == 0
    before = Retriever.open(projected)
    assert before.gallery.calibration is not None
    folder = tmp_path / "more"
    folder.mkdir()
    random = np.random.default_rng(0)
    for number in range(5):
        pixels = random.integers(0, 256, (40, 40, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{number}.png")
    fits.clear()
    extract(projected, "--images", str(folder))
    assert fits == [41]
    after = Retriever.open(projected)
    assert fits == [41]
    assert after.gallery.whitening.digest == before.gallery.whitening.digest
    assert after.gallery.calibration == before.gallery.calibration
    with FeatureStore.open(projected / "features.db") as store:
        store.remove([QUERY, *(f"{folder}/{number}.png" for number in range(5))])
    with caplog.at_level(logging.WARNING):
        after = Retriever.open(projected)
    assert after.gallery.whitening.digest != before.gallery.whitening.digest
    mean, _ = naive_space(projected, 3)
    np.testing.assert_allclose(after.gallery.whitening.mean, mean, atol=1e-6)
    assert after.gallery.calibration is None
    assert "calibrate again" in caplog.text


def test_more_components_than_stored_vectors_are_a_one_line_error(run_folder, capsys):
    configure(run_folder, pca=5)
    with FeatureStore.open(run_folder / "features.db") as store:
        store.remove(store.embeddings().ids[4:])
    assert main(["search", "--run", str(run_folder), "0" * 3]) == 2
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert "search.pca=5: 4 stored vectors of dimension 8 have at most 4" in error


def test_a_minkowski_distance_is_the_same_everywhere(run_folder, capsys):
    configure(run_folder, metric="minkowski-3")
    extract(run_folder)
    assert main(["calibrate", "--run", str(run_folder), "--false-match-rate", "0.2"]) == 0
    retriever = Retriever.open(run_folder)
    vectors = retriever.embeddings.vectors.astype(np.float64)
    row = retriever.embeddings.ids.tolist().index(QUERY)
    distances = (np.abs(vectors - vectors[row]) ** 3).sum(axis=1) ** (1 / 3)
    found = retriever.search(QUERY, 5)
    assert found.ids[0].tolist() == retriever.embeddings.ids[np.argsort(distances)[1:6]].tolist()
    np.testing.assert_allclose(found.distances[0], np.sort(distances)[1:6], rtol=1e-5)
    assert retriever.gallery.calibration.metric == "minkowski-3"
    command = ["search", "--run", str(run_folder), QUERY, "--json", "--re-ranking", "k_reciprocal"]
    assert main(command) == 0
    capsys.readouterr()
    assert main(["evaluate", "--run", str(run_folder), "--json"]) == 0
    evaluated = json.loads(capsys.readouterr().out)
    test = retriever.store.embeddings("test")
    expected = per_query(test, k=(1, 2), metric="minkowski-3")["map"]
    assert evaluated["metric"] == "minkowski-3"
    assert evaluated["figures"]["map"] == pytest.approx(np.nanmean(expected))
    assert main(["compare", str(run_folder), "--json"]) == 0
    compared = json.loads(capsys.readouterr().out)["runs"][0]
    assert (compared["metric"], compared["figures"]) == ("minkowski-3", evaluated["figures"])


def test_a_distance_that_the_index_does_not_know_is_a_one_line_error(run_folder, capsys):
    configure(run_folder, metric="minkowski-3", index="faiss")
    assert main(["search", "--run", str(run_folder), QUERY]) == 2
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert "faiss: knows no minkowski-3 distance; use search.index nearest_neighbors" in error


@pytest.mark.parametrize("metric", ["cosine", "manhattan"])
def test_annoys_trees_are_saved_and_used_again(run_folder, metric, fits, monkeypatch):
    pytest.importorskip("annoy")
    monkeypatch.setattr("cbir_tf.search.annoy_back_end.SMALL", 20)
    configure(run_folder, metric=metric)
    expected = Retriever.open(run_folder).search(QUERY, 5)
    configure(run_folder, index="annoy")
    extract(run_folder)
    assert fits == [36]
    assert (run_folder / "index" / "annoy.index").is_file()
    retriever = Retriever.open(run_folder)
    assert fits == [36] and not retriever.gallery.index.is_exact
    assert retriever.search(QUERY, 5).ids.tolist() == expected.ids.tolist()
    only_blue = retriever.search(QUERY, 5, where=["label=blue"])
    assert all(id_.startswith("blue/") for id_ in only_blue.ids[0])
