"""Images with annotations in COCO's format."""

from __future__ import annotations

import json
import logging
from collections import Counter
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from cbir_tf.config import Config
from cbir_tf.config.data import Data
from cbir_tf.data.coco_annotations import by_frequency, read_annotations
from cbir_tf.data.coco_source import coco
from cbir_tf.data.inspection import inspect_images
from cbir_tf.data.sources import load_images
from cbir_tf.errors import UserError

WIDER = {"cat": "animal", "dog": "animal", "pizza": "food", "kite": "sports"}
IDS = {name: number for number, name in enumerate(WIDER, 1)}
PHOTOS = {
    "a.png": [("dog", 1), ("cat", 9), ("dog", 1)],  # more dogs
    "b.png": [("cat", 4), ("pizza", 5)],  # as many, more of pizza
    "c.png": [("dog", 5), ("cat", 5)],  # as many of one size, cat is listed first
    "d.png": [],
    "e.png": [("kite", 1)],
}


STRATIFIED = {"by": "stratified", "validation": 0, "test": 0}
FILE = "annotations/instances_train2017.json"


def document(photos: dict[str, list[tuple[str, float]]] = PHOTOS, first: int = 1) -> dict[str, Any]:
    """An instances file: categories and areas by file name."""
    annotations = [
        {"image_id": number, "category_id": IDS[name], "area": area, "segmentation": [[1.5, 2]]}
        for number, found in enumerate(photos.values(), first)
        for name, area in found
    ]
    return {
        "info": {"year": 2017},
        "images": [{"id": n, "file_name": name} for n, name in enumerate(photos, first)],
        "categories": [
            {"id": IDS[name], "name": name, "supercategory": of} for name, of in WIDER.items()
        ],
        "annotations": [{"id": n, **each} for n, each in enumerate(annotations)],
    }


def write(root: Path, content: Any, name: str = FILE) -> Path:
    path = root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")
    return path


def pictures(root: Path, *names: str) -> Path:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (8, 8)).save(root / name)
    return root


@pytest.fixture
def photos(tmp_path) -> Path:
    """The images and annotations of `PHOTOS`."""
    write(tmp_path, document())
    return pictures(tmp_path, *(f"images/{name}" for name in PHOTOS))


def labels(images) -> dict[str, str]:
    names = [images.class_names[label] for label in images.labels]
    return dict(zip(images.ids.tolist(), names, strict=True))


def load(root: Path, **options: Any):
    return coco(Data(source="coco", path=root, **options))


def error_line(root: Path, **options: Any) -> str:
    with pytest.raises(UserError) as error:
        load(root, **options)
    assert "\n" not in str(error.value)
    return str(error.value)


# --- labels -------------------------------------------------------------------------------------


def dominant(annotations: list[tuple[int, float]]) -> int:
    """The rule written down: most often, then largest in all, then smallest id."""
    times = Counter(category for category, _ in annotations)
    most = [each for each in times if times[each] == max(times.values())]
    area = {each: sum(Fraction(a) for c, a in annotations if c == each) for each in most}
    return min(each for each in most if area[each] == max(area.values()))


@given(
    st.lists(st.tuples(st.integers(1, 5), st.integers(0, 6).map(lambda n: n / 4)), max_size=12),
    st.randoms(),
)
def test_categories_are_ranked_by_the_rule_in_any_order_of_annotations(annotations, random):
    expected, rest = [], annotations
    while rest:
        expected.append(dominant(rest))
        rest = [each for each in rest if each[0] != expected[-1]]
    random.shuffle(annotations)
    assert by_frequency(annotations) == expected


def test_the_label_is_the_category_with_most_annotations(photos, caplog):
    with caplog.at_level(logging.INFO):
        images = load(photos)
    assert labels(images) == {
        "images/a.png": "dog",
        "images/b.png": "pizza",
        "images/c.png": "cat",
        "images/e.png": "kite",
    }
    assert images.class_names == ("cat", "dog", "kite", "pizza")
    assert images.sources[0] == photos / "images" / "a.png"
    assert set(images.split) == {""}
    assert "1 of 5 images without annotations left out" in caplog.text


def test_all_labels_are_metadata_the_most_frequent_first(photos):
    assert load(photos).metadata[:2] == (
        {
            "category": "dog",
            "categories": "dog,cat",
            "supercategory": "animal",
            "supercategories": "animal",
        },
        {
            "category": "pizza",
            "categories": "pizza,cat",
            "supercategory": "food",
            "supercategories": "food,animal",
        },
    )


def test_at_the_level_of_super_categories_the_label_is_that_of_the_category(photos):
    images = load(photos, coco={"level": "supercategory"})
    assert list(labels(images).values()) == ["animal", "food", "animal", "sports"]
    assert [each["supercategory"] for each in images.metadata] == list(labels(images).values())


def test_coco128_has_the_labels_that_a_loop_over_its_annotations_finds(coco128):
    content = json.loads((coco128 / "annotations" / "instances_train2017.json").read_text())
    name = {each["id"]: each["name"] for each in content["categories"]}
    wider = {each["name"]: each["supercategory"] for each in content["categories"]}
    expected, sets = {}, {}
    for image in content["images"]:
        found = [each for each in content["annotations"] if each["image_id"] == image["id"]]
        if found:
            id_ = f"images/train2017/{image['file_name']}"
            expected[id_] = name[dominant([(each["category_id"], each["area"]) for each in found])]
            sets[id_] = {name[each["category_id"]] for each in found}
    images = load(coco128)
    assert len(expected) == 126
    assert labels(images) == expected
    for id_, columns in zip(images.ids.tolist(), images.metadata, strict=True):
        assert set(columns["categories"].split(",")) == sets[id_]
        assert columns["categories"].split(",")[0] == columns["category"] == expected[id_]
        assert columns["supercategory"] == wider[expected[id_]]
        assert set(columns["supercategories"].split(",")) == {wider[each] for each in sets[id_]}
    assert all(source.is_file() for source in images.sources)


# --- selection ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "kept"),
    [
        ({"categories": ["cat", "dog"]}, {"dog", "cat"}),
        ({"categories": "pizza"}, {"pizza"}),
        ({"supercategories": ["animal", "sports"]}, {"dog", "cat", "kite"}),
        # Of cat and dog, with one image each, cat has the smaller id.
        ({"categories_per_supercategory": 1}, {"cat", "pizza", "kite"}),
        ({"categories_per_supercategory": 1, "supercategories": "animal"}, {"cat"}),
        ({"categories_per_supercategory": 9}, {"cat", "dog", "pizza", "kite"}),
    ],
)
def test_images_are_chosen_by_their_category(photos, options, kept):
    assert set(labels(load(photos, coco=options)).values()) == kept


def test_the_categories_of_most_images_are_chosen(tmp_path):
    found = {f"{number}.png": [("cat" if number < 2 else "dog", 1)] for number in range(5)}
    write(pictures(tmp_path, *found), document(found))
    images = load(tmp_path, coco={"categories_per_supercategory": 1})
    assert list(labels(images).values()) == ["dog"] * 3


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"categories": ["kat"]}, ["data.coco.categories", "'kat'", "did you mean 'cat'?"]),
        ({"supercategories": "anmal"}, ["data.coco.supercategories", "did you mean 'animal'?"]),
        ({"categories": ["animal"]}, ["no 'animal'", "choose one of: cat, dog, kite, pizza"]),
    ],
)
def test_a_misspelt_category_names_the_nearest(photos, options, words):
    line = error_line(photos, coco=options)
    for word in words:
        assert word in line


def test_a_category_that_is_no_images_label_leaves_nothing(tmp_path):
    write(pictures(tmp_path, "a.png"), document({"a.png": PHOTOS["a.png"]}))
    assert "no image has one of the chosen" in error_line(tmp_path, coco={"categories": "kite"})


def test_files_without_super_categories_do_at_the_level_of_categories(photos):
    content = document()
    for each in content["categories"]:
        each["supercategory"] = None
    write(photos, content)
    assert load(photos).metadata[0] == {"category": "dog", "categories": "dog,cat"}
    for options in ({"level": "supercategory"}, {"categories_per_supercategory": 1}):
        assert "has no supercategory" in error_line(photos, coco=options)


def test_names_with_commas_can_stand_in_a_list(photos):
    content = document()
    content["categories"][1]["name"] = " dog,  hound"
    write(photos, content)
    assert load(photos).metadata[0]["categories"] == "dog; hound,cat"
    images = load(photos, coco={"categories": ["dog, hound"]})
    assert set(labels(images).values()) == {"dog; hound"}


# --- files --------------------------------------------------------------------------------------


def test_images_are_found_at_any_depth_by_the_end_of_their_path(tmp_path):
    names = ["x/1.png", "2.png", "deep/3.png"]
    write(tmp_path, document({name: [("cat", 1)] for name in names}))
    pictures(tmp_path, "images/x/1.png", "images/y/1.png", "a/b/c/2.png", "deep/3.png")
    pictures(tmp_path, "a/b/c/12.png")
    pictures(tmp_path, "other/deep/3.png")  # what is at the path itself comes first
    assert load(tmp_path).ids.tolist() == ["images/x/1.png", "a/b/c/2.png", "deep/3.png"]


def test_a_name_that_fits_two_files_is_a_one_line_error(photos):
    pictures(photos, "thumbnails/b.png")
    line = error_line(photos)
    assert "'b.png' could be " in line
    assert "'images/b.png'" in line and "'thumbnails/b.png'" in line
    assert len(load(photos / "images", annotations=photos / FILE)) == 4


def test_two_images_that_are_one_file_are_a_one_line_error(photos):
    content = document()
    content["images"][2]["file_name"] = "images/b.png"
    write(photos, content)
    assert "'images/b.png' is listed 2 times" in error_line(photos)


def test_missing_files_are_listed_like_damaged_ones(photos, caplog):
    (photos / "images" / "b.png").unlink()
    (photos / "images" / "c.png").write_bytes(b"no picture")
    images = load_images(Data(source="coco", path=photos, split=STRATIFIED), 0)
    inspection = inspect_images(images)
    reasons = dict(inspection.damaged)
    assert reasons.keys() == {"b.png", "images/c.png"}
    assert "No such file" in reasons["b.png"]
    assert inspection.images.ids.tolist() == ["images/a.png", "images/e.png"]
    assert "2 of 4 images" in caplog.text


def test_a_folder_without_any_of_the_images_is_a_one_line_error(tmp_path):
    write(tmp_path, document())
    line = error_line(tmp_path)
    assert "none of the 4 images was found" in line and "data.path" in line


@pytest.mark.parametrize(
    "name", ["../a.png", "x/../../a.png", "/etc/a.png", "..", "..\\a.png", "C:\\a.png", "./"]
)
def test_a_file_name_that_leads_out_of_the_folder_is_refused(tmp_path, name):
    pictures(tmp_path, "a.png", "inside/b.png")
    write(tmp_path / "inside", document({name: [("cat", 1)], "b.png": [("dog", 1)]}))
    line = error_line(tmp_path / "inside")
    assert "is not below" in line and "images[0]" in line


# --- splits -------------------------------------------------------------------------------------


def test_files_of_two_splits_give_the_split(tmp_path):
    write(tmp_path, document({"1.png": [("cat", 1)]}), "annotations/instances_train2014.json")
    write(tmp_path, document({"2.png": [("dog", 1)]}), "annotations/instances_val2014.json")
    pictures(tmp_path, "train2014/1.png", "val2014/2.png")
    images = load(tmp_path)
    assert dict(zip(images.ids.tolist(), images.split.tolist(), strict=True)) == {
        "train2014/1.png": "train",
        "val2014/2.png": "validation",
    }


def test_the_folders_of_splits_tell_files_of_one_name_apart(tmp_path):
    content = document({"1.png": [("cat", 1)], "2.png": [("dog", 1)]})
    files = [
        write(tmp_path, content, f"{split}/_annotations.coco.json")
        for split in ("train", "valid", "test")
    ]
    for file in files:
        pictures(file.parent, "1.png", "2.png")
    images = load(tmp_path, annotations=files)
    assert images.ids.tolist()[:2] == ["train/1.png", "train/2.png"]
    assert images.split.tolist() == ["train"] * 2 + ["validation"] * 2 + ["test"] * 2


def test_one_file_has_no_split_whatever_its_name(photos):
    images = load_images(Data(source="coco", path=photos, split=STRATIFIED), 0)
    assert set(images.split) == {"train"}
    with pytest.raises(UserError, match=r"data\.split\.by=stratified"):
        load_images(Data(source="coco", path=photos), 0)


@pytest.mark.parametrize(
    "names",
    [
        ["instances_train2014.json", "instances_val2017.json"],
        ["instances_train2014.json", "instances_train2017.json"],
        ["instances_val2014.json", "instances_minival2014.json"],
    ],
)
def test_files_that_do_not_belong_together_are_named(tmp_path, names):
    for name in names:
        write(tmp_path, document(), f"annotations/{name}")
    line = error_line(tmp_path)
    assert "data.annotations" in line
    assert all(name in line for name in names)


def test_files_with_different_super_categories_are_a_one_line_error(tmp_path):
    other = document({"2.png": [("dog", 1)]})
    other["categories"][0]["supercategory"] = "pet"
    write(tmp_path, document({"1.png": [("cat", 1)]}), "annotations/instances_train.json")
    write(tmp_path, other, "annotations/instances_val.json")
    pictures(tmp_path, "1.png", "2.png")
    line = error_line(tmp_path)
    assert "'cat'" in line and "'pet'" in line and "'animal'" in line


# --- mistakes -----------------------------------------------------------------------------------


def changed(key: str, number: int | None = None, **values: Any) -> dict[str, Any]:
    """The document with some values of a list's item changed; None takes one out."""
    content = document()
    if number is None:
        return content | {key: values["to"]}
    item = content[key][number] | values
    content[key][number] = {name: value for name, value in item.items() if value is not None}
    return content


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("", ["cannot be read as JSON"]),
        ("{", ["cannot be read as JSON"]),
        ("[" * 100_000, ["cannot be read as JSON"]),
        ("[]", ["not an object"]),
        ({}, ["no list of categories"]),
        (changed("images", to=None), ["no list of images", "instances_*.json"]),
        (changed("annotations", to={}), ["no list of annotations"]),
        (changed("categories", to=[1]), ["no list of categories"]),
        (changed("images", to=[]), ["lists no images"]),
        (changed("annotations", to=[]), ["none of the 5 images has an annotation"]),
        (changed("images", 1, id=None), ["images[1]", "has no id"]),
        (changed("images", 1, id=1), ["images[1]", "another image has the id 1"]),
        (changed("images", 1, id=[1]), ["has no id, but [1]"]),
        (changed("images", 1, file_name=None), ["images[1]", "has no file_name"]),
        (changed("images", 1, file_name=""), ["images[1]", "file_name"]),
        (changed("images", 1, file_name="a\0b"), ["images[1]", "file_name"]),
        (changed("images", 1, file_name="\ud800.png"), ["images[1]", "file_name"]),
        (changed("images", 1, file_name="./a.png"), ["'a.png' is listed twice"]),
        (changed("categories", 1, id=None), ["categories[1]", "has no id"]),
        (changed("categories", 1, id="2"), ["has no id, but '2'"]),
        (changed("categories", 1, id=True), ["has no id, but True"]),
        (changed("categories", 1, id=1), ["categories[1]", "another category 1"]),
        (changed("categories", 1, name="cat"), ["another category 'cat'"]),
        (changed("categories", 1, name=None), ["categories[1]", "has no name"]),
        (changed("categories", 1, supercategory=3), ["has no supercategory, but 3"]),
        (changed("annotations", 2, image_id=None), ["annotation 2", "has no image_id"]),
        (changed("annotations", 2, image_id=99), ["annotation 2", "there is no image 99"]),
        (changed("annotations", 2, category_id=None), ["annotation 2", "has no category_id"]),
        (changed("annotations", 2, category_id=99), ["there is no category 99"]),
        (changed("annotations", 2, area=-1), ["annotation 2", "area", "-1"]),
        (changed("annotations", 2, area=float("nan")), ["area", "nan"]),
        (changed("annotations", 2, area=10**400), ["area"]),
        (changed("annotations", 2, area="big"), ["area", "'big'"]),
    ],
)
def test_a_mistake_in_the_file_is_a_one_line_error(photos, content, words):
    path = write(photos, content)
    line = error_line(photos)
    assert str(path) in line
    for word in words:
        assert word in line


@pytest.mark.parametrize("values", [{"area": None}, {"iscrowd": 1}])
def test_an_annotation_without_area_or_of_a_crowd_counts_as_one(photos, values):
    write(photos, changed("annotations", 0, **values))
    assert labels(load(photos))["images/a.png"] == "dog"


def test_a_missing_folder_or_file_is_a_one_line_error(tmp_path, photos):
    assert "no such folder" in error_line(tmp_path / "missing")
    assert "data.annotations" in error_line(photos / "images")
    assert "no such file of annotations" in error_line(photos, annotations="none.json")
    (tmp_path / "bad.json").write_bytes(b"\xff\xfe{")
    assert "cannot be read as JSON" in error_line(photos, annotations=tmp_path / "bad.json")


@settings(max_examples=60)
@given(
    st.sampled_from(["images", "categories", "annotations"]),
    st.integers(0, 3),
    st.sampled_from(
        ["id", "file_name", "name", "supercategory", "image_id", "category_id", "area"]
    ),
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
        lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(), inner, max_size=2),
        max_leaves=4,
    ),
)
def test_any_value_anywhere_is_read_or_refused_in_one_line(
    tmp_path_factory, where, number, key, value
):
    content = document()
    content[where][number][key] = value
    path = write(tmp_path_factory.mktemp("coco"), content)
    try:
        annotations = read_annotations(path)
    except UserError as error:
        assert str(path) in str(error)
        return
    assert len(annotations.images) == len(PHOTOS)
    assert not any(name.startswith(("/", "..")) for name in annotations.images)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"source": "coco"}, "data.path is needed with data.source: coco"),
        ({"source": "digits", "coco": {"level": "supercategory"}}, "data.coco needs"),
        ({"source": "digits", "annotations": "x.json"}, "data.annotations needs"),
        ({"source": "coco", "path": ".", "coco": {"levl": "category"}}, "'level'"),
        ({"source": "coco", "path": ".", "coco": {"level": "super"}}, "'supercategory'"),
        (
            {"source": "coco", "path": ".", "coco": {"categories": "a", "supercategories": "b"}},
            "leave out supercategories",
        ),
    ],
)
def test_the_configuration_refuses_settings_that_conflict(values, message):
    with pytest.raises(UserError, match=message) as caught:
        Config.check({"data": values})
    assert "\n" not in str(caught.value)


def test_the_configuration_reads_back_what_it_writes(tmp_path):
    options = {"categories": "cat", "level": "supercategory"}
    data = {"source": "coco", "path": "x", "annotations": "a.json", "coco": options}
    config = Config.check({"data": data})
    assert config.data.annotations == (Path("a.json").resolve(),)
    (tmp_path / "again.yaml").write_text(config.dump())
    assert Config.load(tmp_path / "again.yaml") == config


@pytest.mark.parametrize("on_disk", ["Caf\u00e9.png", "Cafe\u0301.png"])
def test_a_file_is_found_in_either_unicode_form(tmp_path, on_disk):
    photos = {"Cafe\u0301.png": [("dog", 1)], "b.png": [("cat", 1)]}
    write(tmp_path, document(photos))
    images = load(pictures(tmp_path, on_disk, "b.png"))
    assert labels(images) == {"Caf\u00e9.png": "dog", "b.png": "cat"}
    assert all(each.is_file() for each in images.sources)
