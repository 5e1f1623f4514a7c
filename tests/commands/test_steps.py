"""Searches of several steps: that every verb takes the steps that are configured."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from PIL import Image

from cbir_tf import Retriever, Run
from cbir_tf.commands.cli import main
from cbir_tf.data.decode import decode_image
from cbir_tf.errors import UserError
from cbir_tf.evaluation import score_rankings
from cbir_tf.features.store import FeatureStore
from cbir_tf.models import load_embedder
from cbir_tf.retrieval.classifiers import fit_classifier
from cbir_tf.retrieval.re_ranking import augmented
from cbir_tf.retrieval.run_evaluation import EvaluationTask
from cbir_tf.search import make_index

pytestmark = pytest.mark.slow


def configure(folder: Path, **search: Any) -> Run:
    """Change a run's way of searching."""
    path = folder / "config.yaml"
    values = yaml.safe_load(path.read_text())
    values["search"] |= search
    path.write_text(yaml.safe_dump(values))
    return Run.open(folder)


def output_of(capsys, *arguments: str) -> dict[str, Any]:
    capsys.readouterr()
    assert main([*map(str, arguments), "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def error_of(capsys, *arguments: str) -> str:
    capsys.readouterr()
    assert main(list(map(str, arguments))) == 2
    return capsys.readouterr().err.strip().splitlines()[-1]


def forget(folder: Path, *splits: str) -> None:
    """Take splits out of the store."""
    with FeatureStore.open(folder / "features.db") as store:
        for split in splits:
            store.remove(store.select(split=split))


@pytest.mark.parametrize("name", ["knn", "svm"])
def test_search_reports_the_predicted_class_and_searches_it_first(run_folder, capsys, name):
    command = ["search", "--run", run_folder, "red/03.jpg", "--two-step", name]
    found = output_of(capsys, *command, "-k", "20")
    assert found["search"] == f"two-step {name} hard"
    assert found["class"]["name"] == "red" and 0.5 < found["class"]["probability"] < 1
    assert [each["label"] == "red" for each in found["neighbours"]] == [True] * 11 + [False] * 9
    distances = [each["distance"] for each in found["neighbours"]]
    assert distances == sorted(distances) and distances[11] > distances[10] + 1
    assert main([*map(str, command)]) == 0
    first = capsys.readouterr().out.splitlines()[0]
    assert first == f"class red: probability {found['class']['probability']:.3f}"
    plain = output_of(capsys, "search", "--run", run_folder, "red/03.jpg")
    assert plain["class"] is None and plain["search"] == ""


def test_a_first_step_without_training_images_names_the_command_that_brings_them(
    run_folder, capsys
):
    forget(run_folder, "train")
    command = ["search", "--run", run_folder, "red/03.jpg", "--two-step", "knn"]
    assert main(["extract", "--run", str(run_folder), "--split", "test"]) == 0
    stored = FeatureStore.open(run_folder / "features.db").records("test")[0].id
    command[3] = stored
    assert "--split train" in error_of(capsys, *command)
    assert main(["extract", "--run", str(run_folder), "--split", "train"]) == 0
    assert output_of(capsys, *command)["class"] is not None


def test_extraction_does_not_wait_for_what_the_first_step_needs(run_folder, capsys):
    (run_folder / "features.db").unlink()
    (run_folder / "plots" / "query_grid.png").unlink()
    configure(run_folder, two_step="svm")
    assert main(["extract", "--run", str(run_folder), "--split", "test"]) == 0
    assert "no query grid yet" in capsys.readouterr().err
    assert main(["extract", "--run", str(run_folder), "--split", "train"]) == 0
    assert (run_folder / "plots" / "query_grid.png").exists()


def test_the_first_step_is_learnt_from_the_training_split_alone(run_folder):
    run = configure(run_folder, two_step="svm")
    with FeatureStore.open(run.features) as store:
        training, test = store.embeddings("train"), store.embeddings("test")
        # Had it seen one of these labels, it would say something else.
        records = [each for split in ("test", "validation") for each in store.records(split)]
        changed = [
            each.__class__(**vars(each) | {"label": (each.label + 1) % 3}) for each in records
        ]
        store.describe(changed)
    expected = fit_classifier("svm", training, "cosine").probabilities(test.vectors)
    task = EvaluationTask.open(run, "train", None)
    router = task.retriever.gallery.router(run.config.search.two_step)
    found = router.classifier.probabilities(test.vectors)
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize(
    "search",
    [
        {"re_ranking": "k_reciprocal", "candidates": 6},
        {"re_ranking": "query_expansion", "metric": "euclidean"},
        {"two_step": "svm"},
        {"two_step": {"name": "knn", "mode": "soft"}, "re_ranking": "k_reciprocal"},
    ],
    ids=str,
)
@pytest.mark.parametrize("gallery", ["test", "train"])
def test_evaluate_measures_what_search_finds(run_folder, capsys, search, gallery):
    run = configure(run_folder, **search)
    result = output_of(capsys, "evaluate", "--run", run_folder, "--gallery", gallery)
    retriever = Retriever(run)
    queries = retriever.store.embeddings("test")
    label_of = dict(zip(retriever.embeddings.ids, retriever.embeddings.labels, strict=True))
    depth = len(retriever.store.select(split=gallery)) - (gallery == "test")
    relevance = []
    for id_, label in zip(queries.ids.tolist(), queries.labels, strict=True):
        ids = retriever.search(id_, depth, [f"split={gallery}"]).ids[0]
        relevance.append([label_of[each] == label for each in ids])
    relevance = np.array(relevance)
    expected = score_rankings(relevance, relevance.sum(axis=1), run.config.evaluation.k)
    for name, values in expected.items():
        assert result["figures"][name] == pytest.approx(values.mean()), name
    assert result["search"] and result["depth"] == depth


def test_database_augmentation_moves_images_of_the_gallery_towards_one_another(run_folder, capsys):
    run = configure(run_folder, database_augmentation=3)
    result = output_of(capsys, "evaluate", "--run", run_folder, "--gallery", "train")
    with FeatureStore.open(run.features) as store:
        queries, gallery = store.embeddings("test"), store.embeddings("train")
    moved = augmented(make_index(metric="cosine").fit(gallery), gallery, 3)
    found = make_index(metric="cosine").fit(moved).search(queries.vectors, len(moved))
    label_of = dict(zip(gallery.ids, gallery.labels, strict=True))
    relevance = np.array([[label_of[each] for each in row] for row in found.ids])
    relevance = relevance == queries.labels[:, None]
    expected = score_rankings(relevance, relevance.sum(axis=1), (1, 2))
    for name, values in expected.items():
        assert result["figures"][name] == pytest.approx(values.mean()), name


@pytest.mark.parametrize("index", ["nearest_neighbors", "faiss"])
def test_augmented_vectors_are_stored_and_made_again_for_another_setting(
    run_folder, monkeypatch, index
):
    run = configure(run_folder, database_augmentation=3, index=index)
    assert main(["extract", "--run", str(run_folder), "--split", "all"]) == 0
    expected = Retriever(run)
    plain = make_index(metric="cosine").fit(expected.embeddings)
    moved = augmented(plain, expected.embeddings, 3)
    np.testing.assert_allclose(expected.gallery.index.gallery.vectors, moved.vectors, atol=1e-6)
    queries = expected.embeddings.vectors[:4]
    ours = expected.search(queries[0], 10)
    theirs = make_index(metric="cosine").fit(moved).search(queries[:1], 10)
    assert ours.ids.tolist() == theirs.ids.tolist()

    calls = []
    monkeypatch.setattr(
        "cbir_tf.retrieval.opening.augmented",
        lambda *arguments: calls.append(1) or augmented(*arguments),
    )
    assert Retriever(run).search(queries[0], 10).ids.tolist() == ours.ids.tolist()
    assert not calls
    other = configure(run_folder, database_augmentation=5)
    again = augmented(plain, expected.embeddings, 5)
    retriever = Retriever(other)
    np.testing.assert_allclose(retriever.gallery.index.gallery.vectors, again.vectors, atol=1e-6)
    theirs = make_index(metric="cosine").fit(again).search(queries[:1], 10)
    assert retriever.search(queries[0], 10).ids.tolist() == theirs.ids.tolist()
    assert calls == [1]
    (run_folder / "index" / "augmented.npz").write_bytes(b"half")
    Retriever(run).search(queries[0], 10)
    assert calls == [1, 1]
    none = Retriever(configure(run_folder, database_augmentation=0))
    assert none.gallery.index.gallery is none.embeddings
    theirs = plain.search(queries[:1], 10)
    assert none.search(queries[0], 10).ids.tolist() == theirs.ids.tolist()


def test_a_threshold_holds_for_plain_search_only(run_folder, capsys):
    assert main(["calibrate", "--run", str(run_folder), "--false-match-rate", "0.2"]) == 0
    command = ["search", "--run", run_folder, "red/03.jpg"]
    assert output_of(capsys, *command)["match"] is not None
    assert output_of(capsys, *command, "--two-step", "knn")["match"] is None
    configure(run_folder, database_augmentation=3)
    assert output_of(capsys, *command)["match"] is None


def test_compare_names_the_search_steps_of_each_run(run_folder, tmp_path, capsys):
    other = Path(shutil.copytree(run_folder, tmp_path / "two-step"))
    configure(other, two_step="svm")
    out = tmp_path / "comparison"
    document = output_of(capsys, "compare", run_folder, other, "--out", out)
    plain, two_step = document["runs"]
    assert "search" not in plain and two_step["search"] == "two-step svm hard"
    evaluated = output_of(capsys, "evaluate", "--run", other)
    assert two_step["figures"] == evaluated["figures"]
    table = (out / "comparison.md").read_text()
    (line,) = (line.split("|") for line in table.splitlines() if line.startswith("| search"))
    assert [cell.strip() for cell in line] == ["", "search", "plain", "two-step svm hard", ""]
    assert "two-step svm hard" in (out / "comparison.html").read_text()
    assert "two-step svm hard" in (out / "comparison.csv").read_text()


@pytest.mark.parametrize("augmentation", ["flip", "crops", "rotations"])
def test_gallery_and_queries_go_through_the_same_views(run_folder, photos, capsys, augmentation):
    if augmentation == "crops":  # which a run trained with crops may have
        config, report = run_folder / "config.yaml", run_folder / "training.json"
        config.write_text(config.read_text().replace("resize: stretch", "resize: crop"))
        trained = json.loads(report.read_text())
        trained["fixed_keys"]["data.resize"] = "crop"
        report.write_text(json.dumps(trained))
    run = configure(run_folder, test_time_augmentation=augmentation)
    for command in (["extract"], ["search", "red/03.jpg"], ["evaluate"]):
        error = error_of(capsys, *command, "--run", run_folder)
        expected = f"made with test-time augmentation none, and {augmentation} is configured"
        assert expected in error and "move the file away" in error
    run.features.unlink()
    assert main(["extract", "--run", str(run_folder), "--split", "all"]) == 0
    path = photos / "green" / "00.jpg"
    pixels = decode_image(path, (32, 32), run.config.data.resize)
    views = [pixels, pixels[:, ::-1]]
    if augmentation == "rotations":
        views = [np.rot90(pixels, turns) for turns in range(4)]
    if augmentation == "crops":
        crops = np.split(decode_image(path, (32, 96), "crops"), 3, axis=1)
        views = [view for crop in crops for view in (crop, crop[:, ::-1])]
    mean = load_embedder(run.model).predict_on_batch(np.stack(views)).mean(axis=0)
    mean /= np.linalg.norm(mean)
    retriever = Retriever(run)
    for query in (path, path.read_bytes(), Image.open(path), np.asarray(Image.open(path))):
        np.testing.assert_allclose(retriever.encode(query)[0], mean, atol=1e-4)
    larger = np.pad(pixels, ((8, 8), (8, 8), (0, 0)))
    assert retriever.encode([larger, path]).shape == (2, *mean.shape)
    row = np.searchsorted(retriever.embeddings.ids, "green/00.jpg")
    np.testing.assert_allclose(retriever.embeddings.vectors[row], mean, atol=1e-4)
    assert retriever.search(path.read_bytes(), 1).ids.tolist() == [["green/00.jpg"]]
    configure(run_folder, test_time_augmentation="none")
    assert "and none is configured" in error_of(capsys, "evaluate", "--run", run_folder)


@pytest.fixture(scope="module")
def warmth_folder(tmp_path_factory, config_file, photos):
    """A run on copies of the photos, warm and cold ones; only training photos are extracted."""
    root = tmp_path_factory.mktemp("warmth")
    copies = shutil.copytree(photos, root / "photos")
    lines = [
        f"{path.relative_to(copies)},{'warm' if path.parent.name == 'red' else 'cold'}"
        for path in sorted(copies.rglob("*.jpg"))
    ]
    (copies / "manifest.csv").write_text("path,label\n" + "\n".join(lines))
    folder = root / "run"
    command = ["train", "--config", str(config_file), "--run", str(folder), "data.batch.classes=2"]
    overrides = [f"data.path={copies / 'manifest.csv'}", "model.embedding_size=4", "seed=3"]
    assert main([*command, *overrides, "search.metric=euclidean"]) == 0
    assert main(["extract", "--run", str(folder), "--split", "train"]) == 0
    return folder


def test_another_run_predicts_the_classes_of_query_and_gallery(
    run_folder, warmth_folder, tmp_path, photos, capsys
):
    warmth = Path(shutil.copytree(warmth_folder, tmp_path / "warmth"))
    run = configure(run_folder, two_step={"name": "svm", "run": str(warmth)})
    command = ["search", "--run", run_folder]
    error = error_of(capsys, *command, "red/03.jpg")
    assert f"extract --run {warmth} --images {photos}" in error
    assert "17 other images" in error
    # What the message says is what mends it.
    assert main(["extract", "--run", str(warmth), "--images", str(photos)]) == 0

    found = output_of(capsys, *command, "red/03.jpg", "-k", "15")
    assert found["search"] == "two-step svm of warmth hard"
    assert found["class"]["name"] == "warm"
    retriever, other = Retriever(run), Retriever.open(warmth)
    classifier = other.gallery.fit_classifier(run.config.search.two_step)
    record_of = {record.digest: record.id for record in other.store.records()}
    vector_of = dict(zip(other.embeddings.ids.tolist(), other.embeddings.vectors, strict=True))
    class_of = {}
    for record in retriever.store.records():
        shares = classifier.probabilities(vector_of[record_of[record.digest]][None])
        class_of[record.id] = other.class_names[classifier.labels[shares[0].argmax()]]
    warm = sum(name == "warm" for name in class_of.values()) - 1
    classes = [class_of[each["id"]] for each in found["neighbours"]]
    assert classes == ["warm"] * warm + ["cold"] * (15 - warm)

    outside = tmp_path / "outside.png"
    pixels = decode_image(photos / "blue" / "05.jpg", (48, 64), "stretch")
    Image.fromarray(pixels).save(outside)
    shares = classifier.probabilities(other.encode(outside))[0]
    for query in (outside, outside.read_bytes()):
        prediction = retriever.search(query).prediction[0]
        assert prediction.name == "cold"
        assert prediction.probability == pytest.approx(shares.max())
    with pytest.raises(UserError, match="not vectors"):
        retriever.search(retriever.embeddings.vectors[0])
    evaluated = output_of(capsys, "evaluate", "--run", run_folder)
    assert evaluated["search"] == "two-step svm of warmth hard"
    retriever.close()


def test_a_two_step_run_that_is_missing_is_a_one_line_error(run_folder, tmp_path, capsys):
    configure(run_folder, two_step={"name": "knn", "run": str(tmp_path / "nowhere")})
    error = error_of(capsys, "search", "--run", run_folder, "red/03.jpg")
    assert "nowhere: no run there" in error
