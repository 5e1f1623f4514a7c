"""Images from scikit-learn, folders, manifests and TensorFlow Datasets."""

from __future__ import annotations

import io
import logging
import os
import socketserver
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from cbir_tf.config.data import Data
from cbir_tf.data.decode import decode_original
from cbir_tf.data.folder_source import folder
from cbir_tf.data.sources import digits, images_in_folder, load_images
from cbir_tf.data.tfds_source import RETRIES
from cbir_tf.errors import UserError
from cbir_tf.types import UNLABELLED

STRATIFIED = {"by": "stratified", "validation": 0, "test": 0}


def png(shade: int = 0, size: tuple[int, int] = (8, 8)) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", size, (shade, shade, shade)).save(buffer, format="PNG")
    return buffer.getvalue()


def write(root: Path, *names: str) -> Path:
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(png())
    return root


def manifest(root: Path, text: str, *images: str) -> Path:
    write(root, *images)
    (root / "manifest.csv").write_text(text, encoding="utf-8")
    return root


def error_line(data: Data) -> str:
    with pytest.raises(UserError) as error:
        load_images(data, 0)
    assert "\n" not in str(error.value)
    return str(error.value)


# --- digits -------------------------------------------------------------------------------------


def test_digits_are_the_pictures_and_labels_of_scikit_learn():
    from sklearn.datasets import load_digits

    bunch = load_digits()
    images = digits(Data(source="digits"))
    assert len(images) == 1797
    assert images.ids[[0, 1796]].tolist() == ["digits/0000", "digits/1796"]
    assert images.labels.tolist() == bunch.target.tolist()
    assert images.class_names == tuple("0123456789")
    pixels = decode_original(images.sources[5])
    assert np.abs(pixels[..., 0] / 255 * 16 - bunch.images[5]).max() < 0.04


def test_digits_are_split_by_the_configured_shares():
    data = Data(source="digits", split={"by": "stratified"})
    images = load_images(data, 0)
    # 1257.9, 269.55, 269.55: the largest remainders go up, validation before test.
    sizes = [int((images.split == name).sum()) for name in ("train", "validation", "test")]
    assert sizes == [1258, 270, 269]
    assert "data.split.by=stratified" in error_line(Data(source="digits"))


# --- folders ------------------------------------------------------------------------------------


def test_class_folders_give_sorted_names_and_relative_ids(tmp_path):
    write(tmp_path, "dog/b.png", "dog/a.JPG", "cat/deep/er/c.webp", "bird/x y.gif")
    images = folder(Data(path=tmp_path))
    assert images.class_names == ("bird", "cat", "dog")
    assert images.ids.tolist() == ["bird/x y.gif", "cat/deep/er/c.webp", "dog/a.JPG", "dog/b.png"]
    assert images.labels.tolist() == [0, 1, 2, 2]
    assert images.sources[2] == tmp_path / "dog" / "a.JPG"
    assert set(images.split) == {""}


def test_split_folders_are_recognised_by_their_names(tmp_path):
    write(tmp_path, "train/cat/1.png", "val/cat/1.png", "test/dog/1.png", "train/dog/1.png")
    images = load_images(Data(path=tmp_path), 0)
    assert dict(zip(images.ids.tolist(), images.split.tolist(), strict=True)) == {
        "train/cat/1.png": "train",
        "train/dog/1.png": "train",
        "val/cat/1.png": "validation",
        "test/dog/1.png": "test",
    }
    assert images.class_names == ("cat", "dog")


def test_a_class_named_like_a_split_stays_a_class_beside_others(tmp_path):
    write(tmp_path, "train/1.png", "bus/1.png")
    assert folder(Data(path=tmp_path)).class_names == ("bus", "train")


@pytest.mark.parametrize(
    ("names", "words"),
    [
        (("train/cat/1.png", "val/cat/2.png", "test/dog/3.png", "extra/dog/4.png"), ["extra"]),
        (("train/1.png", "test/2.png", "unlabelled/3.png"), ["test, train", "unlabelled"]),
        (("train/cat/1.png", "more/cat/2.png"), ["train", "more"]),
        (("cat/1.png", "dog/2.png", "test/3.png"), ["test", "cat, dog"]),
        (("Training/cat/1.png", "Testing/dog/2.png"), ["Testing, Training", "name them train"]),
        (("train2017/cat/1.png", "val2017/dog/2.png"), ["train2017, val2017"]),
    ],
)
def test_splits_are_not_taken_for_classes(tmp_path, names, words):
    root = write(tmp_path, *names)
    line = error_line(Data(path=root, split=STRATIFIED))
    for word in [*words, "data.label_depth=1"]:
        assert word in line
    tops = {name.split("/")[0] for name in names}
    assert set(folder(Data(path=root, label_depth=1)).class_names) == tops


def test_a_folder_without_images_beside_splits_changes_nothing(tmp_path):
    write(tmp_path, "train/cat/1.png", "test/dog/2.png", "docs/readme.txt")
    assert folder(Data(path=tmp_path)).split.tolist() == ["test", "train"]


def test_the_depth_of_class_folders_can_be_chosen(tmp_path, caplog):
    names = ("animal/cat/1.png", "animal/dog/x/2.png", "plant/cat/3.png", "plant/4.png")
    root = write(tmp_path, *names)
    assert folder(Data(path=root)).class_names == ("animal", "plant")
    for word in ("2 classes", "animal, plant", "3 folders", "data.label_depth=2"):
        assert word in caplog.text
    caplog.clear()
    images = folder(Data(path=root, label_depth=2))
    assert images.class_names == ("animal/cat", "animal/dog", "plant/cat")
    assert images.ids.tolist() == list(names[:3])
    assert "1 images outside class folders left out, the first plant/4.png" in caplog.text
    assert "label_depth" not in caplog.text
    assert "no image in 4 levels" in error_line(Data(path=root, label_depth=4))
    both = [f"{part}/{name}" for part in ("train", "val") for name in names]
    split = write(tmp_path / "split", *both)
    images = folder(Data(path=split, label_depth=2))
    assert images.class_names == ("animal/cat", "animal/dog", "plant/cat")
    assert set(images.split) == {"train", "validation"}


def test_hidden_files_and_other_files_are_left_out(tmp_path, caplog):
    write(tmp_path, "a/1.png", "a/.2.png", "b/1.png", ".git/1.png", "a/notes.txt", "b/Thumbs.db")
    with caplog.at_level(logging.INFO):
        images = folder(Data(path=tmp_path))
    assert images.ids.tolist() == ["a/1.png", "b/1.png"]
    assert "2 files without an image suffix" in caplog.text


def test_images_outside_class_folders_are_left_out_and_counted(tmp_path, caplog):
    write(tmp_path, "a/1.png", "b/1.png", "stray.png", "other.png")
    assert folder(Data(path=tmp_path)).ids.tolist() == ["a/1.png", "b/1.png"]
    assert "2 images" in caplog.text
    assert "other.png" in caplog.text


def test_links_are_followed_and_loops_end(tmp_path):
    elsewhere = write(tmp_path / "elsewhere", "1.png")
    root = write(tmp_path / "root", "a/1.png")
    (root / "b").symlink_to(elsewhere)
    (root / "a" / "again").symlink_to(root)
    assert folder(Data(path=root)).ids.tolist() == ["a/1.png", "b/1.png"]


@pytest.mark.skipif(os.name != "posix", reason="names are bytes on POSIX alone")
def test_a_file_name_that_is_not_unicode_is_left_out(tmp_path, caplog):
    write(tmp_path, "a/1.png", "b/1.png")
    try:
        Path(os.fsdecode(os.fsencode(tmp_path) + b"/a/\xff.png")).write_bytes(png())
    except OSError:
        pytest.skip("this file system takes only Unicode names")
    assert folder(Data(path=tmp_path)).ids.tolist() == ["a/1.png", "b/1.png"]
    assert "not Unicode" in caplog.text


def test_images_in_folder_finds_all_unlabelled(tmp_path):
    write(tmp_path, "3.png", "b/2.png", "a/1.png")
    images = images_in_folder(tmp_path)
    assert images.ids.tolist() == ["3.png", "a/1.png", "b/2.png"]
    assert set(images.labels) == {UNLABELLED}
    assert images.class_names == ()


def test_images_in_no_class_folder_are_unlabelled_and_train_where_no_label_is_needed(tmp_path):
    flat = write(tmp_path / "flat", *(f"{number}.png" for number in range(8)))
    split = {"by": "stratified", "validation": 0.25, "test": 0}
    images = load_images(Data(path=flat, split=split), 0, by_label=False)
    assert set(images.labels) == {UNLABELLED}
    assert images.class_names == ()
    assert sorted(images.split) == ["train"] * 6 + ["validation"] * 2
    told = write(tmp_path / "told", "train/1.png", "train/2.png", "val/3.png")
    images = load_images(Data(path=told), 0, by_label=False)
    assert images.split.tolist() == ["train", "train", "validation"]
    single = write(tmp_path / "single", "only/1.png", "only/2.png")
    assert len(load_images(Data(path=single, split=STRATIFIED), 0, by_label=False)) == 2


def test_a_class_with_one_image_is_allowed_and_warned_of(tmp_path, caplog):
    write(tmp_path, "a/1.png", "a/2.png", "rare/1.png")
    images = load_images(Data(path=tmp_path, split=STRATIFIED), 0)
    assert len(images) == 3
    assert "1 classes have a single image" in caplog.text
    assert "'rare'" in caplog.text
    assert "second one" in caplog.text


def test_folder_mistakes_are_a_one_line_error(tmp_path):
    assert "no such folder" in error_line(Data(path=tmp_path / "missing"))
    (tmp_path / "empty").mkdir()
    assert "no sub-folders" in error_line(Data(path=tmp_path / "empty"))
    (tmp_path / "texts" / "a").mkdir(parents=True)
    (tmp_path / "texts" / "a" / "readme.txt").write_text("hello")
    assert "no images found" in error_line(Data(path=tmp_path / "texts"))
    flat = write(tmp_path / "flat", "1.png", "2.png")
    assert "class sub-folders" in error_line(Data(path=flat))
    single = write(tmp_path / "single", "only/1.png", "only/2.png")
    assert "at least two classes" in error_line(Data(path=single))
    assert "'only'" in error_line(Data(path=single))
    assert "is a file" in error_line(Data(path=single / "only" / "1.png"))
    with pytest.raises(UserError, match="no images found"):
        images_in_folder(tmp_path / "texts")
    with pytest.raises(UserError, match="no such folder"):
        images_in_folder(tmp_path / "missing")


# --- TensorFlow Datasets ------------------------------------------------------------------------


@pytest.fixture(scope="module")
def tfds_folder(tmp_path_factory) -> Path:
    """Two small sets in the format of TFDS: `tiny_flowers`, and `tiny_numbers` without images."""
    tfds = pytest.importorskip("tensorflow_datasets")
    path = tmp_path_factory.mktemp("tfds")

    def examples(first: int, count: int):
        return [
            (n, {"image": io.BytesIO(png(n)), "label": "abc"[n % 3]})
            for n in range(first, first + count)
        ]

    tfds.dataset_builders.store_as_tfds_dataset(
        name="tiny_flowers",
        version="1.0.0",
        data_dir=path,
        features=tfds.features.FeaturesDict(
            {
                "image": tfds.features.Image(shape=(None, None, 3), encoding_format="png"),
                "label": tfds.features.ClassLabel(names=["c", "b", "a"]),
            }
        ),
        split_datasets={"train": examples(0, 30), "test": examples(100, 9)},
    )
    tfds.dataset_builders.store_as_tfds_dataset(
        name="tiny_numbers",
        version="1.0.0",
        data_dir=path,
        features=tfds.features.FeaturesDict(
            {"number": np.int64, "label": tfds.features.ClassLabel(num_classes=2)}
        ),
        split_datasets={"train": [(n, {"number": n, "label": n % 2}) for n in range(4)]},
    )
    return path


def test_a_tensorflow_dataset_keeps_bytes_labels_and_splits(tfds_folder):
    data = Data(source="tfds", dataset="tiny_flowers", path=tfds_folder, split={"validation": 6})
    images = load_images(data, 0)
    assert images.class_names == ("c", "b", "a")
    assert (images.split == "train").sum() == 24
    assert (images.split == "validation").sum() == 6
    assert (images.split == "test").sum() == 9
    assert sorted(images.ids[images.split == "test"]) == [f"test/{n:06d}" for n in range(9)]
    shades = [int(decode_original(source)[0, 0, 0]) for source in images.sources]
    assert sorted(shades) == [*range(30), *range(100, 109)]
    assert [images.class_names[label] for label in images.labels] == ["abc"[n % 3] for n in shades]
    assert images.sources[0] == png(shades[0])


def test_a_tensorflow_dataset_has_the_same_ids_each_time_and_from_its_own_folder(tfds_folder):
    first = load_images(Data(source="tfds", dataset="tiny_flowers", path=tfds_folder), 0)
    own = tfds_folder / "tiny_flowers" / "1.0.0"
    for name, path in (("tiny_flowers", own), ("tiny_flowers:1.0.0", tfds_folder)):
        again = load_images(Data(source="tfds", dataset=name, path=path), 0)
        assert again.ids.tolist() == first.ids.tolist()
        assert again.sources == first.sources
        assert again.split.tolist() == first.split.tolist()


def test_tensorflow_dataset_mistakes_are_a_one_line_error(tfds_folder, tmp_path):
    def line(name: str, path: Path = tfds_folder) -> str:
        return error_line(Data(source="tfds", dataset=name, path=path))

    assert "'tiny_flowers'" in line("tiny_flower")
    assert "'tf_flowers'" in line("tf_flower", tmp_path)
    assert "does not contain" in line("tiny_flowers:3.0.0")
    assert "contains 'tiny_flowers'" in line("mnist", tfds_folder / "tiny_flowers" / "1.0.0")
    assert "not for image classification" in line("tiny_numbers")
    assert "data.dataset" in line("no/such name")
    assert "9.9.9" in line("tf_flowers:9.9.9", tmp_path)


@pytest.fixture
def asked(monkeypatch) -> Iterator[list[str]]:
    """A proxy that records all requests and refuses them."""
    requests: list[str] = []

    class Nowhere(socketserver.StreamRequestHandler):
        def handle(self):
            requests.append(self.rfile.readline().decode())

    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Nowhere) as server:
        address = f"http://127.0.0.1:{server.server_address[1]}"
        for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"):
            monkeypatch.setenv(name, address)
        for name in ("no_proxy", "NO_PROXY"):
            monkeypatch.delenv(name, raising=False)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield requests
        server.shutdown()


@pytest.mark.slow
def test_a_data_set_that_cannot_be_downloaded_is_given_up_after_a_few_tries(
    asked, tmp_path, caplog
):
    line = error_line(Data(source="tfds", dataset="tf_flowers", path=tmp_path))
    assert line.startswith(f"data.dataset: tf_flowers is not in {tmp_path}")
    assert "cannot be downloaded" in line
    assert "set data.path to the folder" in line
    assert len(asked) == 1 + RETRIES
    assert [each.message for each in caplog.records if each.name.startswith("urllib3")] == []


def test_a_data_set_of_text_is_refused_before_it_is_downloaded(asked, tmp_path):
    line = error_line(Data(source="tfds", dataset="imdb_reviews", path=tmp_path))
    assert "imdb_reviews is not for image classification" in line
    assert "label, text" in line or "text, label" in line
    assert asked == []
    assert list(tmp_path.iterdir()) == []
