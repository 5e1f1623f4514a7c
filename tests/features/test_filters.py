"""Conditions on stored images select what the same conditions in Python select."""

from __future__ import annotations

import operator

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

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
        if number % 10 == 0:
            metadata["year"] = "unknown"
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
    if isinstance(own, str) != isinstance(value, str):
        return sign == "!="
    return OPERATORS[sign](own, value)


@given(
    st.lists(
        st.one_of(
            st.tuples(st.just("year"), st.sampled_from(list(OPERATORS)), st.integers(2014, 2027)),
            st.tuples(st.just("year"), st.sampled_from(list(OPERATORS)), st.just("unknown")),
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
