"""A change of the gallery happens in files, store, index and answers, or in none of them.

Each step of adding, relabelling and removing fails in turn: the disk is full, a permission is
missing, the store is locked, or the process is killed.
"""

from __future__ import annotations

import asyncio
import errno
import io
import itertools
import json
import os
import shutil
import sqlite3
import threading
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from cbir_tf import Retriever, Run
from cbir_tf.config import Config
from cbir_tf.data.added import added_images, id_of
from cbir_tf.features import store_file
from cbir_tf.features.store import FeatureStore
from cbir_tf.server.pipeline.live_gallery import LiveGallery
from cbir_tf.server.pipeline.queries import Addition, Query, Steps


def painted(seed: int) -> bytes:
    content = io.BytesIO()
    pixels = np.random.default_rng(seed).integers(0, 255, (32, 32, 3)).astype(np.uint8)
    Image.fromarray(pixels).save(content, "PNG")
    return content.getvalue()


PICTURE, OTHER = painted(1), painted(2)
ID = id_of(PICTURE)


class Killed(BaseException):
    """What a kill is to the process: nothing that it does after it has an effect."""


def failures() -> dict[str, Callable[[bool], BaseException]]:
    """By name: from whether SQLite takes the step, to what is raised."""

    def of_sqlite(name: str) -> sqlite3.OperationalError:
        error = sqlite3.OperationalError(name)
        error.sqlite_errorname = name
        return error

    return {
        "disk full": lambda store: (
            of_sqlite("SQLITE_FULL") if store else OSError(errno.ENOSPC, "No space left on device")
        ),
        "no permission": lambda store: (
            of_sqlite("SQLITE_READONLY")
            if store
            else PermissionError(errno.EACCES, "Permission denied")
        ),
        "broken disk": lambda store: (
            of_sqlite("SQLITE_IOERR_WRITE") if store else OSError(errno.EIO, "Input/output error")
        ),
        "kill": lambda _: Killed(),
    }


STEPS: list[tuple[Any, str]] = [
    (os, "replace"),
    (os, "fsync"),
    (os, "open"),
    (shutil, "copyfile"),
    (Path, "mkdir"),
    (Path, "touch"),
    (Path, "write_bytes"),
    (Path, "write_text"),
    (Path, "unlink"),
    (store_file.Connection, "executemany"),
]


@contextmanager
def failing(number: int, failure: str) -> Iterator[list[str]]:
    """The numbered step fails, and after a kill all that follow; yields the steps taken."""
    taken: list[str] = []
    failed = False

    def replaced(owner: Any, name: str, original: Callable[..., Any]) -> Callable[..., Any]:
        def step(*arguments: Any, **options: Any) -> Any:
            nonlocal failed
            if failed and failure == "kill":
                raise Killed
            if not failed and threading.current_thread() is not watcher:
                taken.append(f"{getattr(owner, '__name__', owner)}.{name}")
                if len(taken) == number:
                    failed = True
                    raise failures()[failure](owner is store_file.Connection)
            return original(*arguments, **options)

        return step

    watcher = threading.Thread()  # any that is not running
    with pytest.MonkeyPatch.context() as patch:
        for owner, name in STEPS:
            patch.setattr(owner, name, replaced(owner, name, getattr(owner, name)))
        yield taken


def files(folder: Path) -> dict[str, bytes]:
    there = (folder / "added").iterdir() if (folder / "added").exists() else []
    return {each.name: each.read_bytes() for each in there}


def counting(folder: Path) -> dict[str, bytes]:
    """The files of added images: those with label and metadata."""
    there = files(folder)
    abouts = {name.split(".")[0] for name in there if name.endswith(".json")} - {""}
    return {name: content for name, content in there.items() if name.split(".")[0] in abouts}


def stored(folder: Path) -> tuple[Any, ...]:
    with FeatureStore.open(folder / "features.db") as store:
        records = [(each.id, each.label, dict(each.metadata)) for each in store.records()]
        return records, store.class_names, store.embeddings().vectors.tolist()


def about(label: str, year: int) -> dict[str, Any]:
    return {"label": label, "metadata": {"year": year, "place": "Kyōto"}}


CHANGES = {"add": (None, about("lime", 1)), "relabel": (about("lime", 1), about("plum", 2)),
           "remove": (about("lime", 1), None)}  # fmt: skip
"""From what is known of an image before to what is known of it after; None: it is not there."""


# --- while the service goes on ------------------------------------------------------------------


def bring(client, wanted: dict[str, Any] | None) -> int:
    """The status of the change after which this is known of the image."""
    if wanted is None:
        status = client.delete(f"/images/{ID}").status_code
        return 200 if status == 404 else status
    fields = {"label": wanted["label"], "metadata": json.dumps(wanted["metadata"])}
    return client.post("/images", files={"file": PICTURE}, data=fields).status_code


def seen(client, folder: Path) -> tuple[Any, ...]:
    """All that a change may change, but for files on their way out."""
    asked = {"file": OTHER}
    found = client.post("/search", files=asked, data={"k": 36}).json()["neighbours"]
    filtered = [
        client.post("/search", files=asked, data={"k": 1, "where": where}).json().get("neighbours")
        for where in ("label=plum", "year=1")
    ]
    info = client.get("/info").json()
    pictures = [client.get(f"/{kind}/{ID}").status_code for kind in ("images", "thumbnails")]
    return (
        [(each["id"], each["label"]) for each in found],
        filtered,
        (info["images"], info["columns"], info["labels"]),
        pictures,
        stored(folder),
        counting(folder),
    )


@pytest.mark.parametrize(
    ("change", "failure"),
    [
        ("add", "disk full"),
        ("add", "no permission"),
        ("relabel", "disk full"),
        ("relabel", "broken disk"),
        ("remove", "disk full"),
        ("remove", "no permission"),
    ],
)
def test_a_step_that_fails_leaves_all_as_it_was(serving, run_folder, change, failure):
    before, after = CHANGES[change]
    with serving(run_folder) as client:
        assert bring(client, about("plum", 2)) == 201  # both labels are known to the store
        assert bring(client, about("lime", 1)) == 200
        bring(client, after)
        right_after = seen(client, run_folder)
        bring(client, before)
        right_before = seen(client, run_folder)
        for number in itertools.count(1):
            assert bring(client, before) in (200, 201)
            with failing(number, failure) as taken:
                status = bring(client, after)
            now = seen(client, run_folder)
            if len(taken) < number:
                break
            if status == 507:  # "... and nothing has changed"
                assert now == right_before, taken
                assert files(run_folder) == counting(run_folder), taken
            else:  # it has happened, and a file that does not count stays until the next start
                assert status in (200, 201) and now == right_after, taken
    assert number > 5 and "Connection.executemany" in taken


def test_a_change_against_a_locked_store_is_refused_and_changes_nothing(
    serving, run_folder, monkeypatch
):
    monkeypatch.setattr(store_file, "WAIT", 0.05)
    with serving(run_folder) as client, closing(sqlite3.connect(run_folder / "features.db")) as db:
        for change in CHANGES.values():
            assert bring(client, change[0]) in (200, 201)
            before = seen(client, run_folder)
            db.execute("BEGIN IMMEDIATE")
            assert bring(client, change[1]) == 507
            db.rollback()
            assert seen(client, run_folder) == before


def test_a_class_of_a_refused_image_is_not_known(serving, run_folder):
    with serving(run_folder) as client:
        before = stored(run_folder)
        with failing(10**9, "disk full") as taken:
            assert bring(client, about("never seen", 1)) == 201
        assert bring(client, None) == 200
        number = taken.index("Connection.executemany") + 1
        with failing(number, "disk full"):
            assert bring(client, about("another", 1)) == 507
        classes = stored(run_folder)[1]
        assert classes == (*before[1], "never seen")


# --- after a kill -------------------------------------------------------------------------------


@pytest.fixture
def opened(run_folder: Path) -> Iterator[Callable[[], LiveGallery]]:
    """Opens the gallery as a start of the service does."""
    run, galleries = Run.open(run_folder), []

    def opening() -> LiveGallery:
        for each in galleries:
            each.close()
        galleries[:] = [LiveGallery(run, Config.load(run.config_file).search)]
        return galleries[0]

    yield opening
    for each in galleries:
        each.close()


def bring_in(gallery: LiveGallery, wanted: dict[str, Any] | None) -> None:
    if wanted is not None:
        vector = np.ones(gallery.embeddings.vectors.shape[1], np.float32)
        gallery.add(Addition(PICTURE, wanted["label"], wanted["metadata"]), vector)
    elif ID in gallery:
        gallery.remove(ID)


def seen_in(gallery: LiveGallery, folder: Path) -> tuple[Any, ...]:
    (found,) = gallery.find([(Query(Steps(k=36), id="red/00.jpg"), None)]) if ID in gallery else [0]
    ids = None if isinstance(found, int) else (found.ids.tolist(), found.labels.tolist())
    records, classes, vectors = stored(folder)
    named = [(id_, (*classes, None)[label], metadata) for id_, label, metadata in records]
    return ids, len(gallery), gallery.columns, named, vectors, files(folder)


@pytest.mark.parametrize("change", CHANGES)
def test_after_a_kill_a_start_finds_all_or_nothing(opened, run_folder, change):
    before, after = CHANGES[change]
    gallery = opened()
    bring_in(gallery, after)
    right_after = seen_in(opened(), run_folder)
    bring_in(opened(), before)
    right_before, happened = seen_in(opened(), run_folder), set()
    gallery = opened()
    for number in itertools.count(1):
        with failing(number, "kill") as taken:
            try:
                bring_in(gallery, after)
            except Killed:
                pass
            else:
                break
        now = seen_in(gallery := opened(), run_folder)
        assert now in (right_before, right_after), taken
        happened.add(now == right_after)
        bring_in(gallery, before)
    assert happened == {True, False} and number > 5


def test_a_start_sweeps_what_older_versions_have_left(opened, run_folder):
    bring_in(opened(), about("lime", 1))
    (added,) = [each for each in files(run_folder) if each.endswith(".json")]
    content = (run_folder / "added" / added).read_bytes()
    (run_folder / "added" / added).unlink()  # as an interrupted removal did
    orphan = run_folder / "added" / f"{id_of(OTHER).split('/')[1]}.png"
    orphan.write_bytes(OTHER)
    half = run_folder / "added" / f".{orphan.stem}.0123abcd.png"
    half.write_bytes(OTHER[:20])
    (run_folder / "added" / "notes.txt").write_text("not of the service")
    opened()
    assert sorted(files(run_folder)) == sorted([added, added.replace("json", "png"), "notes.txt"])
    assert json.loads((run_folder / "added" / added).read_bytes()) == json.loads(content)


def test_nothing_is_swept_by_a_service_that_is_read_only_or_has_a_new_store(run_folder):
    run = Run.open(run_folder)
    run.added.mkdir()
    orphan = run.added / f"{id_of(OTHER).split('/')[1]}.png"
    orphan.write_bytes(OTHER)
    search = Config.load(run.config_file).search
    LiveGallery(run, search, read_only=True).close()
    assert orphan.is_file()
    for each in run_folder.glob("features.db*"):
        each.unlink()
    LiveGallery(run, search).close()
    assert orphan.is_file()


# --- beside one another -------------------------------------------------------------------------


def test_a_thumbnail_that_is_made_while_its_image_is_removed_is_not_kept(serving, run_folder):
    begun, gate = threading.Event(), threading.Event()

    with serving(run_folder) as client:
        decoders = client.app.state.service.decoders
        make = decoders.thumbnail

        async def slowly(*arguments: Any) -> bytes:
            begun.set()
            assert await asyncio.to_thread(gate.wait, 10)
            return await make(*arguments)

        bring(client, about("lime", 1))
        decoders.thumbnail = slowly
        thread = threading.Thread(target=client.get, args=(f"/thumbnails/{ID}",))
        thread.start()
        assert begun.wait(10)
        assert bring(client, None) == 200
        gate.set()
        thread.join()
        assert client.get(f"/thumbnails/{ID}").status_code == 404


def test_an_image_that_is_removed_meanwhile_is_not_found_and_spoils_no_other_search(opened):
    gallery = opened()
    gallery.remove("red/00.jpg")
    gone, there = gallery.find(
        [(Query(Steps(k=2), id="red/00.jpg"), None), (Query(Steps(k=2), id="red/01.jpg"), None)]
    )
    assert type(gone).__name__ == "ImageNotFoundError" and len(there.ids) == 1


def test_what_is_added_is_in_the_next_extraction_as_it_was_changed_last(opened, run_folder):
    for each in (about("lime", 1), about("plum", 2)):
        bring_in(opened(), each)
    images = added_images(run_folder / "added")
    assert images.class_names == ("plum",) and images.metadata[0]["year"] == 2
    with Retriever.open(run_folder) as retriever:
        assert retriever.label(ID) == "plum"
