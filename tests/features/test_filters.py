"""Conditions on stored images select what the same conditions in Python select."""

from __future__ import annotations

import operator
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cbir_tf.data.text import column_values
from cbir_tf.errors import UserError
from cbir_tf.features.filters import listed
from cbir_tf.features.store import FeatureStore, Record

CLASSES = ["rose", "tulip", 'it\'s; a -- "daisy"']
OPERATORS = {
    "=": operator.eq,
    "!=": operator.ne,
    ">=": operator.ge,
    "<=": operator.le,
    ">": operator.gt,
    "<": operator.lt,
}


def store_of(path, records) -> FeatureStore:
    store = FeatureStore.create(path, "model", CLASSES)
    store.write(records, np.zeros((len(records), 2)))
    return store


@pytest.fixture(scope="module")
def garden(tmp_path_factory):
    random = np.random.default_rng(0)
    records = []
    for number in range(60):
        metadata: dict[str, str | float] = {}
        if number % 4:
            metadata["year"] = int(random.integers(2015, 2026))
        if number % 3:
            metadata['who\'s "eye"'] = str(random.choice(["Ada", "Bo", "Cyd"]))
        split = ["train", "test"][number % 2]
        records.append(Record(f"{number:02d}", None, number % 4 - 1, split, "digest", metadata))
    with store_of(tmp_path_factory.mktemp("garden") / "features.db", records) as store:
        yield store, records


def holds(record: Record, name: str, sign: str, value) -> bool:
    """What a condition means, in Python."""
    if name == "split":
        return OPERATORS[sign](record.split, value)
    own = record.metadata.get(name)
    if own is None:
        return sign == "!="
    return OPERATORS[sign](own, value)


@given(
    st.lists(
        st.one_of(
            st.tuples(st.just("year"), st.sampled_from(list(OPERATORS)), st.integers(2014, 2027)),
            st.tuples(
                st.just('who\'s "eye"'), st.sampled_from(list(OPERATORS)), st.sampled_from("ABCb")
            ),
            st.tuples(st.just("split"), st.sampled_from(["=", "!="]), st.just("test")),
        ),
        max_size=3,
    )
)
def test_selects_what_the_same_conditions_in_python_select(garden, conditions):
    store, records = garden
    found = store.select([f"{name} {sign} {value}" for name, sign, value in conditions])
    expected = [
        each.id for each in records if all(holds(each, *condition) for condition in conditions)
    ]
    assert found.tolist() == expected


# --- numbers ------------------------------------------------------------------------------------

DIGITS = st.text(st.sampled_from("0123456789"), min_size=1, max_size=3)
INTEGERS = st.one_of(
    st.integers(-30, 30), st.integers(2**53 - 2, 2**53 + 3), st.integers(10**30, 10**30 + 3)
)
WRITTEN = st.one_of(
    INTEGERS.map(lambda number: (str(number), Fraction(number))),
    st.tuples(st.integers(-3, 3).filter(bool), DIGITS).map(
        lambda parts: (f"{parts[0]}.{parts[1]}", Fraction(f"{parts[0]}.{parts[1]}"))
    ),
    st.sampled_from([("1e-05", Fraction(1, 100_000)), ("2.5E+03", Fraction(2500))]),
)
"""Text written as a number would be, and the number."""
CODES = st.sampled_from(
    [
        "0012",
        "00",
        "5E3",
        "1e5",
        "1_000",
        "+5",
        ".5",
        "5.",
        "0x10",
        "nan",
        "inf",
        "1,5",
        "\uff11\uff12",
        "-",
    ]
).map(lambda text: (text, None))


def in_python(column, sign: str, asked) -> list[bool]:
    """What a comparison with a column means: column and asked are pairs of text and number."""
    is_number = all(number is not None for _, number in column)
    if not is_number:
        return [OPERATORS[sign](text, asked[0]) for text, _ in column]
    if asked[1] is None:
        return [sign == "!="] * len(column)
    return [OPERATORS[sign](number, asked[1]) for _, number in column]


@settings(max_examples=150)
@given(
    st.one_of(
        st.lists(WRITTEN, min_size=1, max_size=6),
        st.lists(st.one_of(WRITTEN, CODES), min_size=1, max_size=6),
    ),
    st.sampled_from(["=", "!="]),
    st.data(),
)
def test_a_column_is_numeric_only_if_every_cell_is_written_as_a_number(
    tmp_path_factory, column, sign, data
):
    asked = data.draw(st.one_of(WRITTEN, CODES, st.sampled_from(column)))
    cells = [text for text, _ in column]
    with store_of_column(tmp_path_factory, column_values(cells)) as store:
        found = store.select([f'code{sign}"{asked[0]}"']).tolist()
    expected = in_python(column, sign, asked)
    assert found == [str(row) for row, met in enumerate(expected) if met]


@settings(max_examples=80)
@given(st.lists(WRITTEN, min_size=1, max_size=6), st.sampled_from(list(OPERATORS)), WRITTEN)
def test_numbers_of_any_length_are_compared_exactly(tmp_path_factory, column, sign, asked):
    with store_of_column(tmp_path_factory, column_values([text for text, _ in column])) as store:
        found = store.select([f"code{sign}{asked[0]}"]).tolist()
    expected = in_python(column, sign, asked)
    assert found == [str(row) for row, met in enumerate(expected) if met]


def store_of_column(tmp_path_factory, values) -> FeatureStore:
    records = [
        Record(f"{row}", None, 0, "", "digest", {"code": value}) for row, value in enumerate(values)
    ]
    return store_of(tmp_path_factory.mktemp("column") / "features.db", records)


def test_values_of_several_sources_are_one_column(tmp_path):
    """A manifest of 12 and 13 beside one of 0012: the column is text, and 12 is still found."""
    values = [12, 13.0, "0012", 2**60, "9007199254740993"]
    records = [
        Record(f"{row}", None, 0, "", "digest", {"sku": value}) for row, value in enumerate(values)
    ]
    with store_of(tmp_path / "features.db", records) as store:
        assert store.select(["sku=12"]).tolist() == ["0"]
        assert store.select(["sku=0012"]).tolist() == ["2"]
        assert store.select(["sku=13"]).tolist() == ["1"]
        assert store.select(["sku!=12"]).tolist() == ["1", "2", "3", "4"]
        with pytest.raises(UserError, match=r"column of text.*'0012'"):
            store.select(["sku>=12"])
        store.remove(["2"])
        assert store.select([f"sku={2**60}"]).tolist() == ["3"]
        assert store.select(["sku=9007199254740992"]).tolist() == []
        assert store.select(["sku>=9007199254740993"]).tolist() == ["3", "4"]
        assert store.select(["sku=0012"]).tolist() == []
        with pytest.raises(UserError, match="column of numbers"):
            store.select(["sku<0012"])


def test_dates_have_the_order_of_their_text(tmp_path):
    days = ["2023-12-31", "2024-01-01", "2024-06-30T12:00", "2025"]
    records = [
        Record(f"{row}", None, 0, "", "digest", {"day": day}) for row, day in enumerate(days)
    ]
    with store_of(tmp_path / "features.db", records) as store:
        assert store.select(["day>=2024"]).tolist() == ["1", "2", "3"]
        assert store.select(['day<"2024-06-30"']).tolist() == ["0", "1"]


def test_an_empty_value_is_that_of_images_without_one(garden):
    store, records = garden
    assert store.select(["year="]).tolist() == [e.id for e in records if "year" not in e.metadata]
    assert store.select(["year!="]).tolist() == [e.id for e in records if "year" in e.metadata]
    assert store.select(["label="]).tolist() == [e.id for e in records if e.label == -1]
    assert store.select(['label="",rose']).tolist() == [e.id for e in records if e.label < 1]
    assert store.select(["label!="]).tolist() == [e.id for e in records if e.label != -1]


# --- names --------------------------------------------------------------------------------------

COMPOSED, DECOMPOSED = "Caf\u00e9", "Cafe\u0301"


@pytest.mark.parametrize("stored", [COMPOSED, DECOMPOSED])
@pytest.mark.parametrize("asked", [COMPOSED, DECOMPOSED])
def test_text_is_found_in_either_unicode_form(tmp_path, stored, asked):
    path = tmp_path / "features.db"
    with FeatureStore.create(path, "model", ["bar", stored]) as store:
        columns = {stored: "x", "place": stored, "places": f"bar, {stored}"}
        records = [
            Record(f"{stored}/1.jpg", Path(f"/{stored}/1.jpg"), 1, "", "digest", columns),
            Record("bar/1.jpg", None, 0, "", "digest", {"place": "Bar"}),
        ]
        store.write(records, np.zeros((2, 2)))
        name = f"{stored}/1.jpg"
        for condition in (
            f"label={asked}",
            f"place={asked}",
            f"place>{asked[:3]}",
            f"places~{asked}",
            f"{asked}=x",
            f"id={asked}/1.jpg",
            f"path=/{asked}/1.jpg",
        ):
            assert store.select([condition]).tolist() == [name], condition
        assert store.select([f"label!={asked}"]).tolist() == ["bar/1.jpg"]
        assert store.select([f"place!={asked}"]).tolist() == ["bar/1.jpg"]
        assert store.class_names == ("bar", COMPOSED)
        assert store.extend_classes([asked, "new"]) == ("bar", COMPOSED, "new")


# --- labels and lists ---------------------------------------------------------------------------


def test_labels_are_matched_by_name_with_any_characters(garden):
    store, records = garden
    assert store.select(["label=rose,tulip"]).tolist() == [
        each.id for each in records if each.label in (0, 1)
    ]
    assert store.select([f"label={CLASSES[2]}"]).tolist() == [
        each.id for each in records if each.label == 2
    ]
    assert store.select(["label!=rose", "id=03,05"]).tolist() == ["03"]


@settings(max_examples=40)
@given(st.lists(st.text(st.sampled_from("ab ,\"';\n"), max_size=6), min_size=2, max_size=6))
def test_any_text_in_quotation_marks_can_be_a_value(tmp_path_factory, names):
    names = [each.strip() for each in names]
    records = [
        Record(f"{number}", None, 0, "", "digest", {"name": name})
        for number, name in enumerate(names)
    ]
    asked = ",".join('"' + each.replace('"', '""') + '"' for each in names[1:])
    with store_of(tmp_path_factory.mktemp("quoted") / "features.db", records) as store:
        for sign, meant in (("=", True), ("!=", False)):
            expected = [
                each.id for each in records if (each.metadata["name"] in names[1:]) is meant
            ]
            assert store.select([f"name{sign}{asked}"]).tolist() == expected


def test_a_value_is_found_at_any_place_of_a_list(tmp_path):
    tags = ["cat", "cat,dog", "hot dog, cat", "dog", "catfish", 7, 'a "b"\\,[1]', ""]
    records = [
        Record(f"{number}", None, 0, "", "digest", {"tags": text})
        for number, text in enumerate(tags)
    ]
    records.append(Record("8", None, 0, "", "digest"))
    with store_of(tmp_path / "features.db", records) as store:

        def found(condition: str) -> str:
            return "".join(store.select([condition]))

        assert found("tags~cat") == "012"
        assert found("tags ~ dog") == "13"
        assert found("tags~catfish, hot dog") == "24"
        assert found("tags~7") == "5"
        assert found('tags~a "b"\\') == "6"
        assert found("tags~") == ""
        assert found("tags=cat") == "0"
        assert store.select(["tags~cat", "tags~dog"]).tolist() == ["1"]


WORDS = st.text(st.sampled_from("ab ,\"\\[]é'%_"), max_size=8)


@settings(max_examples=40)
@given(st.lists(WORDS, min_size=1, max_size=5), WORDS)
def test_a_list_holds_what_it_holds_in_python(tmp_path_factory, texts, asked):
    records = [
        Record(f"{number}", None, 0, "", "digest", {"tags": text})
        for number, text in enumerate(texts)
    ]
    with store_of(tmp_path_factory.mktemp("lists") / "features.db", records) as store:
        expected = [
            each.id for each in records if set(listed(each.metadata["tags"])) & set(listed(asked))
        ]
        assert store.select([f"tags~{asked}"]).tolist() == expected


@pytest.mark.parametrize(
    ("condition", "message"),
    [
        ("label", "not a comparison"),
        ("=rose", "not a comparison"),
        ("labl=rose", "no column 'labl'; did you mean 'label'"),
        ("yaer>=2020", "no column 'yaer'; did you mean 'year'"),
        ("label=rosé", "no class 'rosé'; did you mean 'rose'"),
        ("label>rose", "labels have no order"),
        ('label="rose', "close the quotation marks"),
        ("label~rose", "an image has one label; use ="),
        ("path~photos", "an image has one path; use ="),
        ("year; DROP TABLE features >= 1", "no column"),
    ],
)
def test_an_invalid_condition_is_a_one_line_error(garden, condition, message):
    with pytest.raises(UserError, match=message) as caught:
        garden[0].select([condition])
    assert "\n" not in str(caught.value)
