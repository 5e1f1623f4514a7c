"""Every path of the command line and of the configuration may be an address of S3."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from cbir_tf.commands.cli import main
from cbir_tf.config.data import Data
from cbir_tf.data.sources import all_images, digits
from cbir_tf.storage.addresses import mirror

pytestmark = pytest.mark.slow

CONFIG = """
data:
  source: folder
  path: s3://pictures/digits
  image_size: 32
  split: {by: stratified, train: 0.5, validation: 0.25, test: null}
model: {backbone: small_cnn, weights: null, embedding_size: 8}
training: {epochs: 0}
evaluation: {bootstrap: 0, k: [1]}
plots: {layout: pca, queries: 2}
"""
RUN = "s3://pictures/runs/digits"


@pytest.fixture
def uploaded(s3):
    """12 digits of three classes, a configuration, and one more digit."""
    images = digits(Data(source="digits"))
    for label in range(3):
        of_class = [row for row, each in enumerate(images.labels) if each == label][:5]
        for row in of_class[:4]:
            name = f"digits/{label}/{images.ids[row].rpartition('/')[2]}.png"
            s3.put_object(Bucket="pictures", Key=name, Body=images.sources[row])
    s3.put_object(Bucket="pictures", Key="query of 2.png", Body=images.sources[of_class[4]])
    s3.put_object(Bucket="pictures", Key="small.yaml", Body=CONFIG.encode())
    return s3


def keys(s3, below: str) -> set[str]:
    listed = s3.list_objects_v2(Bucket="pictures", Prefix=f"{below}/").get("Contents", ())
    return {each["Key"].removeprefix(f"{below}/") for each in listed}


def text(s3, key: str) -> str:
    return s3.get_object(Bucket="pictures", Key=key)["Body"].read().decode()


def test_from_training_to_search_with_nothing_kept_here(uploaded, capsys):
    s3 = uploaded
    assert main(["train", "--config", "s3://pictures/small.yaml", "--run", RUN]) == 0
    assert {"config.yaml", "images.csv", "model.keras", "training.json"} <= keys(s3, "runs/digits")
    for name in ("config.yaml", "images.csv"):
        assert "s3://pictures/digits" in text(s3, f"runs/digits/{name}")
        assert str(mirror()) not in text(s3, f"runs/digits/{name}")
    assert main(["extract", "--run", RUN, "--split", "all"]) == 0
    assert "features.db" in keys(s3, "runs/digits")
    assert not [each for each in keys(s3, "runs/digits") if each.endswith(("-wal", "-shm"))]

    def search(*arguments: str) -> dict:
        capsys.readouterr()
        assert main(["search", "--run", RUN, "-k", "4", "--json", *arguments]) == 0
        return json.loads(capsys.readouterr().out)

    found = search("s3://pictures/query of 2.png", "--grid", "s3://pictures/out/grid.png")
    assert all(each["path"].startswith("s3://pictures/digits/") for each in found["neighbours"])
    assert keys(s3, "out") == {"grid.png"}
    shutil.rmtree(mirror().parent)
    again = search("s3://pictures/query of 2.png", "--grid", "s3://pictures/out/grid.png")
    assert again["neighbours"] == found["neighbours"]
    # Of the data only what the picture shows has been fetched.
    digits_here = list((mirror() / "pictures" / "digits").rglob("*.png"))
    assert len(digits_here) == 4
    stored = found["neighbours"][0]
    itself = search(stored["path"])  # a stored image, which is not its own neighbour
    assert stored["id"] not in [each["id"] for each in itself["neighbours"]]

    table = "s3://pictures/out/trec"
    assert main(["evaluate", "--run", RUN, "--gallery", "train", "--trec", table]) == 0
    assert {"metrics.json", "plots/confusion.png"} <= keys(s3, "runs/digits")
    assert keys(s3, "out/trec") == {"run.txt", "qrels.txt"}
    assert main(["duplicates", "--run", RUN, "--json"]) == 0
    assert '"images": 12' in capsys.readouterr().out


def test_another_folder_of_s3_is_extracted_and_kept_in_step(uploaded, capsys):
    s3 = uploaded
    gallery = "s3://pictures/gallery"
    for number, key in enumerate(sorted(keys(s3, "digits"))[:3]):
        source = {"Bucket": "pictures", "Key": f"digits/{key}"}
        s3.copy_object(Bucket="pictures", Key=f"gallery/{number}.png", CopySource=source)
    assert main(["train", "--config", "s3://pictures/small.yaml", "--run", RUN]) == 0
    assert main(["extract", "--run", RUN, "--images", gallery]) == 0
    s3.delete_object(Bucket="pictures", Key="gallery/1.png")
    capsys.readouterr()
    assert main(["extract", "--run", RUN, "--images", gallery, "--json"]) == 0
    done = json.loads(capsys.readouterr().out)
    assert (done["stored"], done["removed"]) == (2, [f"{gallery}/1.png"])
    # The run's own go by their own ids.
    assert main(["extract", "--run", RUN, "--images", "s3://pictures/digits/0", "--json"]) == 0
    assert main(["search", "--run", RUN, f"{gallery}/0.png", "-k", "5", "--json"]) == 0
    ids = [
        each["id"] for each in json.loads(capsys.readouterr().out.splitlines()[-1])["neighbours"]
    ]
    assert sorted(ids) == sorted(
        [f"{gallery}/2.png", *(f"0/{each}" for each in keys(s3, "digits/0"))]
    )
    assert main(["extract", "--run", RUN, "--images", gallery, "--watch"]) == 2
    assert "--watch needs a local folder" in capsys.readouterr().err


def test_weights_are_read_from_there(uploaded, trained_folder):
    import numpy as np

    from cbir_tf.models import build_embedder, load_embedder
    from cbir_tf.run import Run

    model = Run.open(trained_folder).config.model
    uploaded.upload_file(str(trained_folder / "model.keras"), "pictures", "x.keras")
    there = model.model_copy(update={"weights": "s3://pictures/x.keras"})
    theirs = load_embedder(trained_folder / "model.keras").get_layer("backbone").get_weights()
    ours = build_embedder(there, 0).get_layer("backbone").get_weights()
    for one, other in zip(ours, theirs, strict=True):
        np.testing.assert_array_equal(one, other)


def test_a_manifest_and_annotations_are_read_from_there(uploaded, coco128, s3):
    key = sorted(keys(s3, "digits/1"))[0]
    lines = f"path,label\n1/{key},one\n"
    s3.put_object(Bucket="pictures", Key="digits/manifest.csv", Body=lines.encode())
    for path in ("s3://pictures/digits", "s3://pictures/digits/manifest.csv"):
        images = all_images(Data(source="folder", path=path))
        assert images.class_names == ("one",) and images.sources[0].is_file()

    (file,) = coco128.rglob("instances*.json")
    pictures = sorted(coco128.rglob("*.jpg"))[:4]
    s3.upload_file(str(file), "pictures", "annotations.json")
    for each in pictures:
        s3.upload_file(str(each), "pictures", f"coco/{each.name}")
    data = Data(
        source="coco", path="s3://pictures/coco", annotations="s3://pictures/annotations.json"
    )
    present = [each for each in all_images(data).sources if Path(each).is_file()]
    assert len(present) == sum(each.stem in file.read_text() for each in pictures) > 0


@pytest.mark.parametrize(
    ("command", "reason"),
    [
        (["search", "--run", "s3://pictures/none", "x"], "s3://pictures/none: no run there"),
        (
            ["train", "--config", "s3://pictures/none.yaml"],
            "s3://pictures/none.yaml: nothing there",
        ),
        (["search", "--run", "gs://b/run", "x"], "gs://b/run: not supported"),
        (["evaluate", "--run", "s3:/b"], "s3:/b: not a valid address"),
        (["duplicates", "--images", "s3://pictures/none"], "s3://pictures/none: nothing there"),
        (["compare", "s3://nowhere-at-all/a", "b"], "s3://nowhere-at-all/a: no bucket"),
    ],
)
def test_mistakes_are_a_one_line_error_and_status_2(s3, capsys, command, reason):
    assert main(command) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.strip().splitlines()[-1].startswith(f"error: {reason}")
    assert str(mirror()) not in captured.err
