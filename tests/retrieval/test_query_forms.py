"""Every plain form of a query is searched, every other is one UserError."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from cbir_tf import Retriever, Run, UserError, evaluate, extract
from cbir_tf.features.store import Record
from cbir_tf.retrieval.run_comparison import compare
from cbir_tf.retrieval.run_measures import calibrate

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def retriever(trained_folder):
    with Retriever(str(trained_folder)) as opened:
        yield opened


def test_all_forms_of_one_picture_find_what_its_file_finds(retriever, photos):
    path = photos / "green" / "03.jpg"
    image = Image.open(path)
    pixels = np.asarray(image)
    content = path.read_bytes()
    expected = retriever.search(content, 3)
    forms = {
        "bytearray": bytearray(content),
        "memory": memoryview(content),
        "open file": io.BytesIO(content),
        "image": Image.open(path),
        "RGBA": image.convert("RGBA"),
        "RGBA pixels": np.asarray(image.convert("RGBA")),
        "lists": pixels.tolist(),
        "tuple of one": (pixels,),
        "batch": pixels[np.newaxis],
        "batch of lists": [pixels.tolist()],
        "objects": np.array([str(path), None], dtype=object)[:1],
        "generator": (each for each in [content]),
        "vector": retriever.encode(content)[0],
        "vector as list": retriever.encode(content)[0].tolist(),
        "vectors as lists": retriever.encode(content).tolist(),
        "vector in float64": retriever.encode(content).astype(np.float64),
    }
    for name, form in forms.items():
        found = retriever.search(form, "3")
        same = found.ids[0].tolist() == expected.ids[0].tolist()
        # A path of a stored image is left out of its own neighbours.
        assert same or (name == "objects" and found.ids[0, 0] == expected.ids[0, 1]), name
        if name != "objects":
            np.testing.assert_allclose(found.distances, expected.distances, atol=1e-5, err_msg=name)


def test_gray_pixels_of_either_shape_are_one_picture(retriever, photos):
    gray = Image.open(photos / "red" / "01.jpg").convert("L")
    forms = [gray, np.asarray(gray), np.asarray(gray)[..., None], gray.convert("LA")]
    vectors = retriever.encode(forms)
    np.testing.assert_allclose(vectors, np.tile(vectors[:1], (4, 1)), atol=1e-5)


def test_ids_as_another_search_gives_them_are_queries(retriever):
    first = retriever.search("red/00.jpg", 3)
    again = retriever.search(first.ids[0], 2)
    assert again.ids.shape == (3, 2)
    assert again.ids[0].tolist() == retriever.search(str(first.ids[0, 0]), 2).ids[0].tolist()


def test_where_is_one_condition_or_several_and_nothing_else(retriever):
    one = retriever.search("red/00.jpg", 3, "label=blue").ids.tolist()
    for where in (["label=blue"], ("label=blue",), np.array(["label=blue"])):
        assert retriever.search("red/00.jpg", 3, where).ids.tolist() == one
    assert retriever.select("label=blue").tolist() == retriever.select(["label=blue"]).tolist()
    assert retriever.search("red/00.jpg", 3, None).ids.shape == (1, 3)
    for where in (5, {"label": "blue"}, [5], b"label=blue", [["label=blue"]]):
        with pytest.raises(UserError, match="where"):
            retriever.search("red/00.jpg", 3, where)


def truncated() -> Image.Image:
    content = io.BytesIO()
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (64, 64, 3), np.uint8)).save(
        content, "PNG"
    )
    return Image.open(io.BytesIO(content.getvalue()[:2000]))


@pytest.mark.parametrize(
    "query",
    [
        None,
        5,
        True,
        {"path": "red/00.jpg"},
        [],
        [None],
        [[]],
        "nowhere.jpg",
        b"",
        b"no picture",
        np.zeros((4, 4, 3)),
        np.ones((1, 4, 4, 3), np.float32),
        np.zeros((4, 4, 2), np.uint8),
        np.zeros((4, 4, 3), np.int64),
        np.zeros((0, 4, 3), np.uint8),
        np.zeros((2, 2, 2, 2, 3), np.uint8),
        np.zeros(3),
        np.full(8, np.nan),
        np.zeros(8, complex),
        np.zeros(8, bool),
        np.array(5),
        [1.0, "a"],
        [[1.0], [1.0, 2.0]],
        [[[1.5, 2, 3]]],
        [[[300, 2, 3]]],
        [np.zeros(8), np.zeros(3)],
        truncated(),
    ],
    ids=lambda each: str(type(each).__name__),
)
def test_anything_else_is_one_user_error(retriever, query):
    for do in (retriever.search, retriever.encode):
        if do == retriever.encode and isinstance(query, np.ndarray) and query.ndim == 1:
            continue  # of vectors, which are passed through
        with pytest.raises(UserError) as error:
            do(query)
        assert "\n" not in str(error.value) and len(str(error.value)) < 500


@pytest.mark.parametrize("k", ["many", 0, -1, 2.5, True, [3], 1e9])
def test_an_impossible_k_is_one_user_error(retriever, k):
    with pytest.raises(UserError, match="k="):
        retriever.search("red/00.jpg", k)


def test_functions_of_runs_take_a_run_its_folder_or_its_name(trained_folder, run_folder, tmp_path):
    run = Run.open(run_folder)
    assert Retriever.open(run).embeddings.ids.tolist()
    figures = evaluate(str(run_folder), trec=str(tmp_path / "trec"))["figures"]
    assert (tmp_path / "trec" / "run.txt").is_file()
    assert evaluate(run)["figures"] == figures
    (row,) = compare(str(run_folder), k="1")["runs"]
    assert row["figures"]["map"] == pytest.approx(figures["map"])
    assert calibrate(run, "0.5")[0].false_match_rate == 0.5
    for do in (
        lambda: evaluate(run, split="tests"),
        lambda: evaluate(run, gallery=5),
        lambda: evaluate(run, levels=["red"]),
        lambda: evaluate(run, trec=5),
        lambda: extract(run, "everything"),
        lambda: extract(run, folder=5),
        lambda: compare([]),
        lambda: compare(run, split="tests"),
        lambda: compare(run, k=0),
        lambda: calibrate(run, "often"),
        lambda: Retriever(5),
    ):
        with pytest.raises(UserError) as error:
            do()
        assert "\n" not in str(error.value)


def test_one_id_is_removed_and_not_its_letters(run_folder):
    with Retriever(run_folder) as opened:
        count = len(opened.gallery)
        opened.remove("red/00.jpg")
        assert len(opened.gallery) == count - 1 and "red/00.jpg" not in opened.gallery
        with pytest.raises(UserError, match="ids"):
            opened.remove(5)


@pytest.mark.parametrize("stored", ["Caf\u00e9", "Cafe\u0301"])
def test_a_stored_id_is_found_in_either_unicode_form(run_folder, stored):
    with Retriever.open(run_folder) as opened:
        vector = opened.embeddings.vectors[:1]
        opened.add([Record(stored, None, 0, "", "digest")], vector, [])
        for asked in ("Caf\u00e9", "Cafe\u0301"):
            assert opened.stored_id(asked) == stored
            assert stored not in opened.search(asked, 3).ids  # it is the query itself
