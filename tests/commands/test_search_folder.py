"""cbir search PHOTOS QUERY: no run, no training; several queries, and one of several pictures."""

from __future__ import annotations

import csv
import io
import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from cbir_tf.commands.cli import main
from cbir_tf.retrieval.retriever import Retriever


@pytest.fixture(scope="module", autouse=True)
def cache(tmp_path_factory) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CBIR_TF_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture
def model(trained_folder) -> list[str]:
    """A quick model in place of the default one."""
    return ["--model", str(trained_folder)]


@pytest.fixture(scope="module")
def files(photos) -> dict[str, list[Path]]:
    return {each.name: sorted(each.glob("*.jpg")) for each in photos.iterdir() if each.is_dir()}


def printed(capsys, *arguments) -> str:
    assert main(["search", *map(str, arguments)]) == 0
    return capsys.readouterr().out


def test_a_folder_is_searched_with_a_picture_from_elsewhere(photos, files, model, tmp_path, capsys):
    name, (query, *_) = next(iter(files.items()))
    elsewhere = tmp_path / "query.jpg"
    shutil.copy(query, elsewhere)
    answer = json.loads(printed(capsys, photos, elsewhere, "-k", 3, "--json", *model))
    assert answer["query"] == str(elsewhere)
    assert answer["neighbours"][0]["path"] == str(query)
    assert [Path(each["path"]).parent.name for each in answer["neighbours"]] == [name] * 3


def test_a_folder_of_queries_is_one_query_for_each_picture(photos, files, model, capsys):
    name = next(iter(files))
    answers = json.loads(printed(capsys, photos, photos / name, "-k", 1, "--json", *model))
    assert [each["query"] for each in answers] == [str(each) for each in files[name]]
    for each in answers:
        assert each["neighbours"][0]["path"] != each["query"]


def test_the_table_has_a_row_for_each_neighbour(photos, files, model, capsys):
    queries = [each[0] for each in files.values()]
    table = printed(capsys, photos, *queries, "-k", 2, "--csv", *model)
    rows = list(csv.DictReader(io.StringIO(table)))
    assert [(row["query"], row["rank"]) for row in rows] == [
        (str(query), str(rank)) for query in queries for rank in (1, 2)
    ]
    assert all(Path(row["path"]).is_file() for row in rows)


def test_a_query_of_several_pictures_is_their_mean_less_the_mean_of_others(trained_folder, files):
    first, second, third = files.values()
    plus, minus = [first[0], first[3], second[1]], [third[2]]
    with Retriever.open(trained_folder) as retriever:
        found = retriever.search_combined(plus, minus, k=5)
        stored = retriever.embeddings
        own = [retriever.stored_id(each) for each in [*plus, *minus]]
        vectors = dict(zip(stored.ids.tolist(), stored.vectors, strict=True))
        unit = {id_: each / np.linalg.norm(each) for id_, each in vectors.items()}
        wanted = np.mean([unit[id_] for id_ in own[:3]], axis=0) - unit[own[3]]
        wanted /= np.linalg.norm(wanted)
        distances = {id_: 1 - float(each @ wanted) for id_, each in unit.items() if id_ not in own}
        expected = sorted(distances, key=lambda id_: (np.float32(distances[id_]), id_))[:5]
        assert found.ids[0].tolist() == expected
        np.testing.assert_allclose(found.distances[0], [distances[i] for i in expected], atol=1e-5)


def test_pictures_that_cancel_out_are_refused(trained_folder, files, capsys):
    image = str(next(iter(files.values()))[0])
    arguments = ["--run", str(trained_folder), image, "--combine", "--minus", image]
    assert main(["search", *arguments]) == 2
    assert "cancel" in capsys.readouterr().err


def test_a_combined_query_is_one_answer(photos, files, model, tmp_path, capsys):
    first, second, *_ = files.values()
    grid = tmp_path / "grid.png"
    arguments = [first[0], first[1], "--combine", "--minus", second[0], "-k", 4, "--grid", grid]
    answer = json.loads(printed(capsys, photos, *arguments, "--json", *model))
    assert len(answer["neighbours"]) == 4
    assert str(first[1]) in answer["query"] and str(second[0]) in answer["query"]
    assert grid.is_file()


@pytest.mark.parametrize(
    ("arguments", "telling"),
    [
        (["{photos}", "nothing_here.jpg"], "nothing_here.jpg"),
        (["{empty}", "{query}"], "{empty}"),
        (["--run", "{run}", "{query}", "--minus", "{query}"], "--combine"),
        (["--run", "{run}", "{query}", "--store", "somewhere"], "--store"),
        (["nothing_here", "{query}"], "nothing_here: not a folder"),
        (["{photos}"], "{photos}: no query"),
    ],
)
def test_what_does_not_go_together_is_one_line(
    photos, files, trained_folder, tmp_path, monkeypatch, capsys, arguments, telling
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    places = {
        "photos": str(photos),
        "query": str(next(iter(files.values()))[0]),
        "run": str(trained_folder),
        "empty": str(tmp_path / "empty"),
    }
    model = ["--model", str(trained_folder)] if "--run" not in arguments else []
    model = model if arguments[0].startswith("{") and len(arguments) > 1 else []
    given = [each.format(**places) for each in arguments]
    assert main(["search", *given, *model]) == 2
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert telling.format(**places) in error
