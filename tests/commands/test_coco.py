"""COCO's photos from training to the figures with several labels and at two levels."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from cbir_tf.commands.cli import main
from cbir_tf.features.store import FeatureStore
from cbir_tf.retrieval.run_images import folder_images, split_images
from cbir_tf.run import Run

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def coco_run(coco128, tmp_path_factory) -> Path:
    """The folder of a run trained on coco128, whose test images are extracted."""
    folder = tmp_path_factory.mktemp("runs")
    config = folder / "coco.yaml"
    config.write_text(
        f"""
data:
  source: coco
  path: "{coco128}"
  image_size: 32
  split: {{by: stratified, train: 0.4, validation: 0.2, test: null}}
model: {{backbone: small_cnn, weights: null, embedding_size: 8}}
training: {{epochs: 1}}
evaluation: {{bootstrap: 0, k: [1, 4]}}
plots: {{layout: pca, queries: 2}}
"""
    )
    run = folder / "run"
    assert main(["train", "--config", str(config), "--run", str(run)]) == 0
    assert main(["extract", "--run", str(run), "--split", "test"]) == 0
    return run


def precision_at(k: int, run: Path, relevant) -> tuple[float, int]:
    """Mean precision@k leave-one-out, and the number of queries, by loops over the store."""
    with FeatureStore.open(run / "features.db") as store:
        vectors, records = store.embeddings("test").vectors, store.records("test")
    values = []
    for query, vector in zip(records, vectors, strict=True):
        others = [
            (1 - float(vector @ other), record.id, relevant(query, record))
            for record, other in zip(records, vectors, strict=True)
            if record.id != query.id
        ]
        if any(each for _, _, each in others):
            values.append(np.mean([each for _, _, each in sorted(others)[:k]]))
    return float(np.mean(values)), len(values)


def shares_category(one, other) -> bool:
    sets = (set(each.metadata["categories"].split(",")) for each in (one, other))
    return bool(set.intersection(*sets))


def test_levels_and_several_labels_come_from_columns(coco_run, capsys):
    command = ["evaluate", "--run", str(coco_run), "--level-column", "supercategory"]
    assert main([*command, "--label-column", "categories"]) == 0
    printed = capsys.readouterr().out
    assert "\nby supercategory: leave-one-out: " in printed
    assert "\nsharing categories: leave-one-out: " in printed
    result = json.loads((coco_run / "metrics.json").read_text())["test against test"]
    assert "wine glass" in result["label_sets"]["categories"]["per_class"]
    relevance = {
        "category": lambda one, other: one.label == other.label,
        "supercategory": lambda one, other: (
            one.metadata["supercategory"] == other.metadata["supercategory"]
        ),
        "categories": shares_category,
    }
    documents = {
        "category": result,
        "supercategory": result["levels"]["supercategory"],
        "categories": result["label_sets"]["categories"],
    }
    for name, document in documents.items():
        mean, queries = precision_at(4, coco_run, relevance[name])
        assert document["queries"] == queries, name
        assert document["figures"]["precision@4"] == pytest.approx(mean, abs=1e-6), name
    assert "animal" in documents["supercategory"]["per_class"]
    # In few photos is the cup what there is most of.
    cups = documents["categories"]["per_class"]["cup"]["queries"]
    assert cups > result["per_class"].get("cup", {"queries": 0})["queries"]


@pytest.mark.parametrize(
    ("option", "column", "words"),
    [
        ("--level-column", "categories", ["'categories'", "not a level", "choose another"]),
        ("--level-column", "supercategry", ["no column", "did you mean 'supercategory'?"]),
        ("--label-column", "catgories", ["no column", "did you mean 'categories'?"]),
    ],
)
def test_an_unsuitable_column_is_a_one_line_error(coco_run, capsys, option, column, words):
    assert main(["evaluate", "--run", str(coco_run), option, column]) == 2
    line = capsys.readouterr().err.strip().splitlines()[-1]
    for word in words:
        assert word in line


def test_search_chooses_by_super_category_and_by_any_label(coco_run, capsys):
    with FeatureStore.open(coco_run / "features.db") as store:
        records = {record.id: record for record in store.records()}
        query = min(records)
    command = ["search", "--run", str(coco_run), query, "-k", "3", "--json", "--where"]
    for condition, column in (("supercategory=animal", "supercategory"), ("categories~dog", "")):
        assert main([*command, condition]) == 0
        found = json.loads(capsys.readouterr().out)["neighbours"]
        assert len(found) >= 2
        for each in found:
            columns = records[each["id"]].metadata
            if column:
                assert columns[column] == "animal"
            else:
                assert "dog" in str(columns["categories"]).split(",")


def test_system_bs_pictures_are_drawn(coco_run):
    for name in ("classes", "variance", "components", "embedding_map"):
        assert (coco_run / "plots" / f"{name}.png").stat().st_size > 10_000


def test_images_of_the_data_folder_keep_ids_labels_and_metadata(coco_run, coco128):
    run = Run.open(coco_run)
    found, _ = folder_images(run, coco128 / "images" / "train2017")
    own = {id_.rpartition("/")[2]: id_ for id_ in found.ids.tolist()}
    assert len(own) == 128
    known = split_images(run, "all")
    for row, id_ in enumerate(known.ids.tolist()):
        place = found.ids.tolist().index(own[id_.rpartition("/")[2]])
        assert found.ids[place] == id_
        assert found.class_names[found.labels[place]] == known.class_names[known.labels[row]]
        assert found.split[place] == known.split[row]
        assert found.metadata[place] == known.metadata[row]
