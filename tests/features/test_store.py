"""The feature store keeps what it is given, of one model only."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from cbir_tf.errors import UserError
from cbir_tf.features.store import FeatureStore, Record


def record(id_: str, split: str = "test", label: int = 0) -> Record:
    return Record(id_, Path("/photos") / id_, label, split, digest="d" + id_)


@given(
    vectors=arrays(
        np.float32,
        st.tuples(st.integers(1, 8), st.just(3)),
        elements=st.floats(-1e6, 1e6, width=32),
    )
)
def test_stored_vectors_are_read_bit_for_bit_in_order_of_id(tmp_path_factory, vectors):
    path = tmp_path_factory.mktemp("store") / "features.db"
    ids = [f"{number:03d}" for number in range(len(vectors))]
    with FeatureStore.create(path, "model", ["ä", "b"]) as store:
        store.write([record(id_) for id_ in reversed(ids)], vectors[::-1])
    with FeatureStore.open(path) as store:
        embeddings = store.embeddings()
        assert list(embeddings.ids) == ids
        assert embeddings.vectors.tobytes() == vectors.astype(np.float32).tobytes()
        assert store.class_names == ("ä", "b")
        assert store.records() == [record(id_) for id_ in ids]


def test_what_a_deleted_store_left_behind_is_not_taken_for_the_new_ones(tmp_path):
    path = tmp_path / "features.db"
    program = f"""
        import os
        import numpy as np
        from cbir_tf.features.store import FeatureStore, Record
        store = FeatureStore.create(__import__("pathlib").Path({str(path)!r}), "old", ["a"])
        store.write([Record("old", None, 0, "test", "d")], np.ones((1, 2)))
        os._exit(1)  # as killed: what was written is beside the file still
    """
    subprocess.run([sys.executable, "-c", textwrap.dedent(program)], check=False)
    assert (tmp_path / "features.db-wal").stat().st_size
    path.unlink()
    with FeatureStore.create(path, "new", ["b"]) as store:
        assert (store.encoder_fingerprint, store.class_names, len(store.records())) == (
            "new",
            ("b",),
            0,
        )


def test_a_store_is_there_whole_or_not_at_all(tmp_path, monkeypatch):
    path = tmp_path / "features.db"

    def killed(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr("cbir_tf.features.store.json.dumps", killed)
    with pytest.raises(KeyboardInterrupt):
        FeatureStore.create(path, "model", ["a"])
    assert not path.exists()


def test_splits_are_read_apart(tmp_path):
    with FeatureStore.create(tmp_path / "features.db", "model", ["a"]) as store:
        store.write([record("1", "train"), record("2", "test")], np.eye(2))
        assert list(store.embeddings("test").ids) == ["2"]
        assert [each.id for each in store.records("train")] == ["1"]
        assert len(store.embeddings("validation")) == 0


def test_vectors_are_read_from_one_state_despite_writes_meanwhile(tmp_path):
    path = tmp_path / "features.db"
    with FeatureStore.create(path, "model", ["a"]) as store:
        store.write([record("1"), record("2")], np.ones((2, 3)))
    with FeatureStore.open(path) as reading, FeatureStore.open(path) as writing:

        def write_before(statement: str) -> None:
            if "ORDER BY id" in statement:  # they have been counted
                reading._connection.set_trace_callback(None)
                writing.write([record("3")], np.zeros((1, 3)))
                writing.remove(["1"])

        reading._connection.set_trace_callback(write_before)
        found = reading.embeddings()
        assert found.ids.tolist() == ["1", "2"] and (found.vectors == 1).all()
        assert reading.embeddings().ids.tolist() == ["2", "3"]


def test_writing_an_id_again_replaces_it(tmp_path):
    with FeatureStore.create(tmp_path / "features.db", "model", ["a"]) as store:
        store.write([record("1")], np.array([[1.0, 2.0]]))
        store.write([record("1", label=-1)], np.array([[3.0, 4.0]]))
        assert store.embeddings().vectors.tolist() == [[3.0, 4.0]]
        assert store.embeddings().labels.tolist() == [-1]


def test_the_store_of_another_model_is_refused(tmp_path):
    FeatureStore.create(tmp_path / "features.db", "one", ["a"]).close()
    with pytest.raises(UserError, match="another model"):
        FeatureStore.create(tmp_path / "features.db", "two", ["a"])


def test_a_missing_a_foreign_and_a_newer_file_are_refused(tmp_path):
    with pytest.raises(UserError, match=r"no features yet.*cbir extract"):
        FeatureStore.open(tmp_path / "features.db")
    (tmp_path / "text.db").write_text("not a database " * 100)
    with pytest.raises(UserError, match="no usable feature store"):
        FeatureStore.open(tmp_path / "text.db")
    sqlite3.connect(tmp_path / "other.db").execute("CREATE TABLE x (y)").connection.commit()
    with pytest.raises(UserError, match="no feature store"):
        FeatureStore.open(tmp_path / "other.db")
    FeatureStore.create(tmp_path / "new.db", "one", ["a"]).close()
    with sqlite3.connect(tmp_path / "new.db") as connection:
        connection.execute("UPDATE about SET value = '99' WHERE key = 'schema_version'")
    with pytest.raises(UserError, match="version 99"):
        FeatureStore.open(tmp_path / "new.db")


def test_killed_while_writing_only_whole_batches_remain(tmp_path):
    path = tmp_path / "features.db"
    code = f"""
        import itertools
        from pathlib import Path
        import numpy as np
        from cbir_tf.features.store import FeatureStore, Record
        store = FeatureStore.create(Path({str(path)!r}), "model", ["a"])
        for batch in itertools.count():
            ids = [f"{{batch:05d}}-{{row:03d}}" for row in range(100)]
            records = [Record(id_, None, 0, "test", "d") for id_ in ids]
            store.write(records, np.full((100, 64), batch))
            print(batch, flush=True)
    """
    process = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(code)], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    for _ in range(20):
        line = process.stdout.readline()
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    process.stdout.close()
    with FeatureStore.open(path) as store:
        embeddings = store.embeddings()
    assert len(embeddings) % 100 == 0
    assert len(embeddings) >= (int(line) + 1) * 100
    batches = embeddings.vectors.reshape(-1, 100, 64)
    assert (batches == np.arange(len(batches))[:, None, None]).all()


VERSION_1 = """
CREATE TABLE about (key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE features (id TEXT PRIMARY KEY, path TEXT, label INTEGER NOT NULL, split TEXT NOT NULL,
    digest TEXT NOT NULL, vector BLOB NOT NULL) WITHOUT ROWID;
INSERT INTO about VALUES ('schema_version', '1'), ('model', 'model'), ('class_names', '["a"]');
"""


def test_a_store_of_the_first_version_is_brought_to_this_one(tmp_path):
    path = tmp_path / "features.db"
    with sqlite3.connect(path) as connection:
        connection.executescript(VERSION_1)
        vector = np.float32([1, 2]).tobytes()
        connection.execute(
            "INSERT INTO features VALUES ('x', '/photos/x', 0, 'test', 'dx', ?)", (vector,)
        )
    connection.close()
    for _ in range(2):
        with FeatureStore.open(path) as store:
            assert store.records() == [record("x")]
            assert store.embeddings().vectors.tolist() == [[1, 2]]
    with FeatureStore.create(path, "model", ["a"]) as store:
        store.write([Record("y", None, 0, "test", "dy", {"year": 2020})], np.ones((1, 2)))
        assert store.select(["year>=2020"]).tolist() == ["y"]


def test_half_precision_halves_the_vectors_and_keeps_three_digits(tmp_path):
    vectors = np.random.default_rng(0).normal(size=(5, 7)).astype(np.float32)
    with FeatureStore.create(tmp_path / "features.db", "model", ["a"], "float16") as store:
        store.write([record(str(each)) for each in range(5)], vectors)
        found = store.embeddings().vectors
    assert found.dtype == np.float32
    assert np.array_equal(found, vectors.astype(np.float16).astype(np.float32))


def test_every_change_gives_the_store_another_version(tmp_path):
    with FeatureStore.create(tmp_path / "features.db", "model", ["a"]) as store:
        versions = [store.version]
        store.write([record("1")], np.ones((1, 2)))
        versions.append(store.version)
        store.describe([record("1", label=-1)])
        versions.append(store.version)
        store.remove(["1", "not there"])
        versions.append(store.version)
        store.remove([])
        assert store.version == versions[-1]
        assert len(set(versions)) == 4
        assert len(store.embeddings()) == 0


def test_a_changed_description_keeps_the_vector(tmp_path):
    with FeatureStore.create(tmp_path / "features.db", "model", ["a"]) as store:
        store.write([record("1")], np.array([[1.0, 2.0]]))
        moved = Record("1", Path("/elsewhere/1"), -1, "train", "d1", {"year": 1999, "by": "Ada"})
        store.describe([moved])
        assert store.record("1") == store.record_at(Path("/elsewhere/1")) == moved
        assert store.record("2") is store.record_at(Path("/photos/1")) is None
        assert store.embeddings().vectors.tolist() == [[1, 2]]


def test_classes_are_added_to_the_end(tmp_path):
    with FeatureStore.create(tmp_path / "features.db", "model", ["b", "a"]) as store:
        assert store.extend_classes(["c", "a"]) == store.class_names == ("b", "a", "c")


def test_classes_and_images_are_written_together_or_not_at_all(tmp_path):
    path = tmp_path / "features.db"
    with FeatureStore.create(path, "f", ["cat"]) as store:
        store.write([Record("a", None, 1, "", "")], np.ones((1, 2)), ["cat", "dog"])
        assert store.class_names == ("cat", "dog")
        with FeatureStore.open(path) as other:
            other.extend_classes(["bird"])
        # What the first has not seen would be a dog there and a bird here.
        with pytest.raises(UserError, match="classes"):
            store.write([Record("b", None, 2, "", "")], np.ones((1, 2)), ["cat", "dog", "cow"])
        assert store.class_names == ("cat", "dog", "bird") and store.record("b") is None
        store.write([Record("b", None, 1, "", "")], np.ones((1, 2)), ["cat", "dog"])
        assert store.class_names == ("cat", "dog", "bird") and store.record("b") is not None


def test_vectors_of_other_views_are_refused_as_those_of_another_model_are(tmp_path):
    path = tmp_path / "features.db"
    FeatureStore.create(path, "digest", ["a"]).close()
    expected = r"test-time augmentation none, and flip is configured.*cbir extract --run"
    with pytest.raises(UserError, match=expected):
        FeatureStore.create(path, "digest flip", ["a"])
    with pytest.raises(UserError, match="another model"):
        FeatureStore.create(path, "other flip", ["a"])


def test_digests_are_those_of_the_records(tmp_path):
    with FeatureStore.create(tmp_path / "features.db", "model", ["a"]) as store:
        store.write([record("2"), record("1")], np.eye(2))
        assert list(store.digests().items()) == [("1", "d1"), ("2", "d2")]


def test_a_locked_store_is_in_use_and_is_not_to_be_deleted(tmp_path, monkeypatch):
    monkeypatch.setattr("cbir_tf.features.store_file.WAIT", 0.1)
    path = tmp_path / "features.db"
    with FeatureStore.create(path, "model", ["a"]) as store:
        store.write([record("1")], np.ones((1, 3)))
        other = sqlite3.connect(path, isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(UserError, match="in use by another process") as caught:
            store.write([record("2")], np.ones((1, 3)))
        assert "delete" not in str(caught.value)
        assert store.embeddings().ids.tolist() == ["1"]  # readers go on
        other.execute("ROLLBACK")
        store.write([record("2")], np.ones((1, 3)))
        other.close()


def test_a_read_only_store_is_read_and_a_change_is_refused(tmp_path, monkeypatch):
    path = tmp_path / "features.db"
    with FeatureStore.create(path, "model", ["a"]) as store:
        store.write([record("1")], np.ones((1, 3)))
    before = sorted(tmp_path.iterdir())
    monkeypatch.setattr("cbir_tf.features.store_file.os.access", lambda *_: False)  # root may
    with FeatureStore.open(path) as store:
        assert store.embeddings().ids.tolist() == ["1"]
        assert store.select(["id=1"]).tolist() == ["1"]
        with pytest.raises(UserError, match="check the permissions") as caught:
            store.write([record("2")], np.ones((1, 3)))
        assert "delete" not in str(caught.value)
        assert sorted(tmp_path.iterdir()) == before


def test_only_a_damaged_file_is_to_be_deleted(tmp_path):
    path = tmp_path / "features.db"
    with FeatureStore.create(path, "model", ["a"]) as store:
        store.write([record(str(each)) for each in range(50)], np.ones((50, 300)))
    content = bytearray(path.read_bytes())
    content[4096:] = b"\xff" * (len(content) - 4096)
    path.write_bytes(content)
    with pytest.raises(UserError, match="delete it"), FeatureStore.open(path) as store:
        store.embeddings()
    database = tmp_path / "other.db"
    sqlite3.connect(database).execute("CREATE TABLE accounts (id)")
    with pytest.raises(UserError, match="no feature store") as caught:
        FeatureStore.open(database)
    assert "delete" not in str(caught.value)


VERSION_2 = """
CREATE TABLE about (key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE features (
    id TEXT PRIMARY KEY,
    path TEXT,              -- or address; null for images that are not files
    label INTEGER NOT NULL, -- counts into about.class_names; -1 for unlabelled
    split TEXT NOT NULL,
    digest TEXT NOT NULL,   -- SHA-256 of the encoded image
    metadata TEXT NOT NULL DEFAULT '{}', -- JSON object of text and numbers
    vector BLOB NOT NULL    -- little-endian, of about.dtype
) WITHOUT ROWID;
CREATE INDEX described ON features (path, label, split, metadata); -- filters need not read vectors
INSERT INTO about VALUES ('schema_version', '2'), ('model', 'model'), ('class_names', '["a"]'),
    ('dtype', 'float32'), ('version', '');
"""


@pytest.mark.parametrize("is_read_only", [False, True])
def test_a_store_of_the_second_version_tells_own_images_from_others(
    tmp_path, monkeypatch, is_read_only
):
    path = tmp_path / "features.db"
    ids = ["C:\\photos\\1.png", "a/1.png", "/photos/1.png", "s3://photos/1.png"]
    with sqlite3.connect(path) as connection:
        connection.executescript(VERSION_2)
        rows = [
            (id_, "test", f"d{id_}", vector.tobytes())
            for id_, vector in zip(ids, np.eye(4, dtype=np.float32), strict=True)
        ]
        connection.executemany("INSERT INTO features VALUES (?, NULL, 0, ?, ?, '{}', ?)", rows)
    connection.close()
    content = path.read_bytes()
    if is_read_only:
        monkeypatch.setattr("cbir_tf.features.store_file.os.access", lambda *_: False)
    for _ in range(2):
        with FeatureStore.open(path) as store:
            assert store.select(gallery="run").tolist() == ["a/1.png"]
            assert store.select(["gallery=earlier"]).tolist() == sorted(set(ids) - {"a/1.png"})
            assert len(store.embeddings()) == 4 and store.galleries() == []
            assert store.vectors_of(["da/1.png"])["da/1.png"].tolist() == [0, 1, 0, 0]
            if is_read_only:
                with pytest.raises(UserError, match="check the permissions"):
                    store.remove(["a/1.png"])
    assert (path.read_bytes() == content) is is_read_only


@given(
    st.lists(st.text(st.characters(exclude_characters="\0"), max_size=4), unique=True, max_size=8)
)
def test_any_text_is_an_id_a_label_and_metadata(tmp_path_factory, texts):
    """Also the surrogates that stand for the bytes of a file name that is not UTF-8."""
    path = tmp_path_factory.mktemp("store") / "features.db"
    images = [Record(text, None, 0, "", text, {"name": text}) for text in texts]
    with FeatureStore.create(path, "model", ["a"]) as store:
        store.write(images, np.arange(2 * len(texts)).reshape(-1, 2))
    with FeatureStore.open(path) as store:
        found = store.embeddings()
        assert found.ids.tolist() == sorted(texts) == [each.id for each in store.records()]
        for text, vector in zip(texts, np.arange(2 * len(texts)).reshape(-1, 2), strict=True):
            assert found.vectors[found.ids.tolist().index(text)].tolist() == vector.tolist()
            assert store.record(text) == images[texts.index(text)]
        assert {each.id for each in store.records_of(texts)} == set(texts)
        store.remove(texts)
        assert not len(store.embeddings())


def test_vectors_of_removed_images_are_known_by_content_until_removed_for_good(tmp_path):
    with FeatureStore.create(tmp_path / "features.db", "model", ["a"]) as store:
        store.write([record("1"), record("2")], np.eye(2))
        store.remove(["1"], spare=True)
        assert {
            name: each.tolist() for name, each in store.vectors_of(["d1", "d2", "d3"]).items()
        } == {
            "d1": [1, 0],
            "d2": [0, 1],
        }
        assert store.embeddings().ids.tolist() == ["2"]
        store.write([record("1")], np.array([[1, 0]]))
        store.remove(["1", "2"])
        assert store.vectors_of(["d1", "d2"]) == {}
