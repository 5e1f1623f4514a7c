"""Every form of one picture gives one vector, and many queries find what each finds alone."""

from __future__ import annotations

import io
import json
import shutil

import numpy as np
import pytest
from PIL import Image

from cbir_tf import Retriever, Run, UserError
from cbir_tf.commands.cli import main

pytestmark = pytest.mark.slow


@pytest.fixture
def retriever(run_folder):
    with Retriever(Run.open(run_folder)) as opened:
        yield opened


def test_path_bytes_array_and_pillow_image_give_one_vector(retriever, photos):
    path = photos / "green" / "03.jpg"  # 64 x 48 pixels; the model takes 32 x 32
    image = Image.open(path)
    forms = [path, str(path), path.read_bytes(), image, np.asarray(image), image.convert("RGBA")]
    vectors = retriever.encode(forms)
    np.testing.assert_allclose(vectors, np.tile(vectors[:1], (len(forms), 1)), atol=1e-5)
    row = retriever.embeddings.ids.tolist().index("green/03.jpg")
    np.testing.assert_allclose(vectors[0], retriever.embeddings.vectors[row], atol=1e-5)
    # A batch of pixels is several pictures, and one of a gray picture is one.
    pixels = np.asarray(image)
    assert retriever.encode(np.stack([pixels, pixels[:, ::-1]])).shape == (2, 8)
    assert retriever.encode(pixels[..., 0]).shape == (1, 8)


@pytest.mark.parametrize(
    ("pixels", "message"),
    [
        (np.zeros((4, 4, 3), np.float32), "float32"),
        (np.zeros((4, 4, 2), np.uint8), r"\(4, 4, 2\)"),
        (np.zeros((0, 4, 3), np.uint8), r"\(0, 4, 3\)"),
        (np.zeros((4, 4, 3), np.int64), "int64"),
    ],
)
def test_pixels_of_another_form_are_a_one_line_error(retriever, pixels, message):
    with pytest.raises(UserError, match=message) as caught:
        retriever.search(pixels)
    assert "uint8" in str(caught.value) and "\n" not in str(caught.value)


def test_a_file_replaced_since_it_was_extracted_is_encoded_again(run_folder, photos, tmp_path):
    copies = tmp_path / "copies"
    shutil.copytree(photos, copies)
    assert main(["extract", "--run", str(run_folder), "--images", str(copies)]) == 0
    with Retriever(Run.open(run_folder)) as retriever:
        query = copies / "red" / "03.jpg"
        before = retriever.search(query, 1, ["label=blue"]).distances[0, 0]
        shutil.copyfile(photos / "blue" / "05.jpg", query)
        after = retriever.search(query, 1, ["label=blue"])
        assert after.distances[0, 0] < 1e-5 < before
        by_bytes = retriever.search(query.read_bytes(), 1, ["label=blue"])
        assert after.ids.tolist() == by_bytes.ids.tolist()


def test_many_queries_of_every_kind_find_what_each_finds_alone(retriever, photos):
    vector = retriever.encode(photos / "red" / "01.jpg")[0]
    content = io.BytesIO()
    Image.new("RGB", (50, 40), (200, 60, 60)).save(content, "PNG")
    queries = ["blue/02.jpg", photos / "green" / "01.jpg", content.getvalue(), vector, "red/00.jpg"]
    together = retriever.search(queries, 4)
    assert together.ids.shape == (5, 4)
    for row, query in enumerate(queries):
        alone = retriever.search([query], 4)
        assert alone.ids[0].tolist() == together.ids[row].tolist()
        np.testing.assert_allclose(alone.distances[0], together.distances[row], atol=1e-6)
        for hit in together.hits(row):
            assert hit.label == hit.id.split("/")[0] and hit.path.name == hit.id.split("/")[1]


def test_the_command_takes_several_queries(run_folder, photos, tmp_path, capsys):
    command = ["search", "--run", str(run_folder), "-k", "3"]
    queries = ["blue/02.jpg", str(photos / "green" / "01.jpg")]
    capsys.readouterr()
    assert main([*command, *queries, "--json", "--grid", str(tmp_path / "grid.png")]) == 0
    answers = json.loads(capsys.readouterr().out)
    assert [each["query"] for each in answers] == queries
    for query, answer in zip(queries, answers, strict=True):
        assert main([*command, query, "--json"]) == 0
        assert json.loads(capsys.readouterr().out) == answer
    assert Image.open(tmp_path / "grid.png").height > 300
    assert main([*command, *queries]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line for line in lines if line in queries] == queries
    assert sum(line.startswith("  1  ") for line in lines) == 2
    assert main([*command, queries[0], "nowhere.jpg"]) == 2
    failed = capsys.readouterr()
    assert not failed.out and "nowhere.jpg" in failed.err.splitlines()[-1]


def test_a_default_k_gives_what_there_is_and_a_given_one_has_to_be_there(retriever):
    retriever.remove(retriever.embeddings.ids[3:].tolist())
    query = str(retriever.embeddings.ids[0])
    assert retriever.search(query).ids.shape == (1, 2)
    with pytest.raises(UserError, match="holds only 2"):
        retriever.search(query, 5)


def test_no_query_is_refused_and_one_condition_needs_no_list(retriever):
    with pytest.raises(UserError, match="no query"):
        retriever.search([])
    one, listed = (
        retriever.search("red/00.jpg", 3, where) for where in ("label=blue", ["label=blue"])
    )
    assert one.ids.tolist() == listed.ids.tolist()
    assert all(id_.startswith("blue/") for id_ in one.ids[0])
