"""What is on a (local) S3 server comes into the mirror, and what changes here goes there."""

from __future__ import annotations

import logging
import os
import re
import shutil
import signal
import sqlite3
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest

from cbir_tf.errors import UserError
from cbir_tf.storage.addresses import mirror, path_of
from cbir_tf.storage.remote import fetch_missing, local, synchronized

RUN = "s3://pictures/runs/one"


def put(s3, **objects: str) -> None:
    for key, content in objects.items():
        s3.put_object(Bucket="pictures", Key=key, Body=content.encode())


def there(s3, below: str = "") -> dict[str, str]:
    """Content by key, asked of the server."""
    listed = s3.list_objects_v2(Bucket="pictures", Prefix=below).get("Contents", ())
    return {
        each["Key"]: s3.get_object(Bucket="pictures", Key=each["Key"])["Body"].read().decode()
        for each in listed
    }


def here(folder: Path) -> dict[str, str]:
    """Content by path of every file of a folder."""
    return {
        each.relative_to(folder).as_posix(): each.read_text()
        for each in folder.rglob("*")
        if each.is_file()
    }


@pytest.fixture
def calls(s3_server, monkeypatch):
    """The names of the operations that are asked of the server."""
    import aiobotocore.client

    names: list[str] = []
    call = aiobotocore.client.AioBaseClient._make_api_call

    def counting(client, name, arguments):
        names.append(name)
        return call(client, name, arguments)

    monkeypatch.setattr(aiobotocore.client.AioBaseClient, "_make_api_call", counting)
    return names


@pytest.fixture
def elsewhere(s3, tmp_path, monkeypatch):
    """Goes to another machine: one with a mirror of its own; called again, back."""
    folders = [tmp_path / "other cache", tmp_path / "cache"]

    def move() -> None:
        monkeypatch.setenv("CBIR_TF_CACHE", str(folders[0]))
        folders.reverse()

    return move


# --- reading ------------------------------------------------------------------------------------


def test_a_folder_is_mirrored_and_only_what_changes_is_fetched_again(s3, calls):
    objects = {"photos/a b.txt": "1", "photos/deep/ü#?%41+.txt": "2", "photos/c": ""}
    put(s3, **objects, **{"photosnot": "x", "photos/": "", "photos/deep/": ""})
    folder = local("s3://pictures/photos/")
    assert folder == mirror() / "pictures" / "photos"
    assert here(folder) == {key.removeprefix("photos/"): each for key, each in objects.items()}
    calls.clear()
    local(folder)
    assert "GetObject" not in calls

    put(s3, **{"photos/a b.txt": "changed", "photos/new": "3"})
    s3.delete_object(Bucket="pictures", Key="photos/deep/ü#?%41+.txt")
    calls.clear()
    local(folder)
    assert calls.count("GetObject") == 2
    assert here(folder) == {"a b.txt": "changed", "c": "", "new": "3"}
    assert not (folder / "deep").exists()
    shutil.rmtree(mirror())
    local(folder)
    assert here(folder) == {"a b.txt": "changed", "c": "", "new": "3"}


def test_a_file_is_fetched_alone(s3):
    put(s3, **{"a.jpg": "1", "a.jpg.bak": "2", "b.jpg": "3"})
    assert local("s3://pictures/a.jpg").read_text() == "1"
    assert here(mirror()) == {"pictures/a.jpg": "1"}


def test_a_whole_bucket_is_a_folder(s3):
    put(s3, **{"a": "1", "b/c": "2"})
    assert here(local("s3://pictures")) == {"a": "1", "b/c": "2"}


def test_more_objects_than_one_page_lists(s3):
    import aiobotocore.client

    call = aiobotocore.client.AioBaseClient._make_api_call

    def small_pages(client, name, arguments):
        return call(client, name, arguments | ({"MaxKeys": 2} if name == "ListObjectsV2" else {}))

    put(s3, **{f"many/{number}": str(number) for number in range(7)})
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(aiobotocore.client.AioBaseClient, "_make_api_call", small_pages)
        assert len(here(local("s3://pictures/many"))) == 7


def test_keys_that_no_file_can_have_are_left_out_and_told(s3, caplog):
    put(s3, **{"photos/../../escape": "x", "photos//double": "x", "photos/good": "1"})
    with caplog.at_level(logging.WARNING, logger="cbir_tf"):
        logging.getLogger("cbir_tf").propagate = True
        folder = local("s3://pictures/photos")
    assert here(mirror()) == {"pictures/photos/good": "1"}
    assert folder.is_dir()
    assert "2 objects left out" in caplog.text


def test_an_object_that_is_a_folder_too_is_one_line(s3):
    put(s3, **{"x/a": "1", "x/a/b": "2", "x/a-b": "3"})
    with pytest.raises(UserError, match=r"^s3://pictures/x/a: is an object, and a folder"):
        local("s3://pictures/x")
    assert not (mirror() / "pictures").exists()
    assert local("s3://pictures/x/a").read_text() == "1"
    with pytest.raises(UserError, match=r"^s3://pictures/x/a: is an object, and a folder"):
        local("s3://pictures/x/a/b")


def test_a_folder_that_became_an_object_and_back(s3):
    put(s3, **{"x/a/b": "1"})
    local("s3://pictures/x")
    s3.delete_object(Bucket="pictures", Key="x/a/b")
    put(s3, **{"x/a": "2"})
    assert here(local("s3://pictures/x")) == {"a": "2"}
    s3.delete_object(Bucket="pictures", Key="x/a")
    put(s3, **{"x/a/b": "1"})
    assert here(local("s3://pictures/x")) == {"a/b": "1"}


def test_killed_midway_it_goes_on(s3, s3_server):
    put(s3, **{f"photos/{number:03d}": str(number) for number in range(300)})
    code = "from cbir_tf.storage.remote import local; local('s3://pictures/photos')"
    process = subprocess.Popen([sys.executable, "-c", code], stderr=subprocess.DEVNULL)
    folder = mirror() / "pictures" / "photos"
    deadline = time.monotonic() + 60
    while not (folder.is_dir() and len(list(folder.iterdir())) > 20):
        assert process.poll() is None and time.monotonic() < deadline
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    arrived = [each for each in folder.iterdir() if not each.name.startswith(".")]
    assert 0 < len(arrived) < 300
    assert all(each.read_text() == str(int(each.name)) for each in arrived)
    local(folder)
    assert len([each for each in folder.iterdir() if not each.name.startswith(".")]) == 300


def test_a_command_sees_one_state_of_its_data(s3):
    put(s3, **{"photos/a": "1"})
    with synchronized():
        local("s3://pictures/photos")
        put(s3, **{"photos/a": "2"})
        assert here(local("s3://pictures/photos")) == {"a": "1"}
    assert here(local("s3://pictures/photos")) == {"a": "2"}


def test_single_files_that_have_gone_here_are_fetched(s3):
    put(s3, **{"photos/a": "1", "photos/b": "2"})
    folder = local("s3://pictures/photos")
    shutil.rmtree(folder)
    fetch_missing([folder / "a", folder / "never there", Path("/not mirrored")])
    assert here(folder) == {"a": "1"}


# --- writing ------------------------------------------------------------------------------------


def write(**files: str) -> None:
    """One command that makes or changes files of the run, or deletes them."""
    folder = path_of(RUN)
    with synchronized([folder]):
        for name, content in files.items():
            path = folder / name
            if content:
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text(content)
            else:
                path.unlink()


def test_what_a_command_makes_goes_there_and_unchanged_files_do_not(s3, calls):
    files = {"config.yaml": "c", "index/a": "1", "model.keras": "m"}
    write(**files)
    assert there(s3) == {f"runs/one/{name}": content for name, content in files.items()}
    calls.clear()
    write()
    assert not {"PutObject", "DeleteObject", "GetObject"} & set(calls)
    write(**{"index/a": "2", "model.keras": ""})
    assert there(s3) == {"runs/one/config.yaml": "c", "runs/one/index/a": "2"}


def test_the_configuration_comes_last_and_a_replaced_run_is_hidden_meanwhile(s3, calls):
    import aiobotocore.client

    order: list[tuple[str, str]] = []
    call = aiobotocore.client.AioBaseClient._make_api_call

    def noting(client, name, arguments):
        if name in ("PutObject", "DeleteObject"):
            order.append((name, arguments["Key"].removeprefix("runs/one/")))
        return call(client, name, arguments)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(aiobotocore.client.AioBaseClient, "_make_api_call", noting)
        write(**{"config.yaml": "c", "model.keras": "m", "plots/z.png": "p", "last.npz": "l"})
        assert [name for _, name in order[1:]] == ["last.npz", "model.keras", "config.yaml"]
        order.clear()
        write(**{"model.keras": "another", "plots/z.png": "q", "last.npz": ""})
    assert order[0] == ("DeleteObject", "config.yaml")
    assert order[1:] == [
        ("PutObject", "plots/z.png"),
        ("PutObject", "model.keras"),
        ("PutObject", "config.yaml"),
        ("DeleteObject", "last.npz"),
    ]
    assert there(s3) == {
        "runs/one/config.yaml": "c",
        "runs/one/model.keras": "another",
        "runs/one/plots/z.png": "q",
    }


@pytest.mark.parametrize("error", [KeyboardInterrupt, UserError("no"), RuntimeError])
def test_it_goes_there_however_the_command_ends(s3, error):
    folder = path_of(RUN)
    with pytest.raises(error if isinstance(error, type) else UserError), synchronized([folder]):
        folder.mkdir(parents=True)
        (folder / "last.npz").write_text("1")
        raise error
    assert there(s3) == {"runs/one/last.npz": "1"}


def test_what_a_killed_command_left_is_kept_and_sent_by_the_next(s3):
    write(**{"config.yaml": "c", "checkpoints/last.npz": "1"})
    path_of(f"{RUN}/checkpoints/last.npz").write_text("second epoch")  # and killed
    write()
    assert there(s3)["runs/one/checkpoints/last.npz"] == "second epoch"


def test_another_machine_goes_on(s3, elsewhere):
    write(**{"config.yaml": "c", "last.npz": "1"})
    elsewhere()
    write(**{"last.npz": "", "model.keras": "m"})
    elsewhere()
    assert (path_of(RUN) / "last.npz").exists()
    write()
    assert here(path_of(RUN)) == {"config.yaml": "c", "model.keras": "m"}


def test_what_two_machines_change_is_not_overwritten(s3, elsewhere):
    write(**{"config.yaml": "c", "metrics.json": "1"})
    elsewhere()
    with (
        pytest.raises(UserError, match=rf"^{RUN}/metrics.json: changed there and also here"),
        synchronized([path_of(RUN)]),
    ):
        elsewhere()
        write(**{"metrics.json": "2"})
        elsewhere()
        path_of(f"{RUN}/metrics.json").write_text("3 here")
    assert there(s3)["runs/one/metrics.json"] == "2"
    with pytest.raises(UserError, match="changed there and also here"):
        write()
    path_of(f"{RUN}/metrics.json").unlink()  # as the line says
    write()
    assert path_of(f"{RUN}/metrics.json").read_text() == "2"


def test_the_same_change_on_both_sides_is_none(s3, calls):
    write(**{"config.yaml": "c"})
    (mirror().parent / "s3.db").unlink()  # nothing is known of the file any more
    calls.clear()
    write()
    assert not {"PutObject", "GetObject"} & set(calls)


def test_a_large_file_sent_in_parts_is_known_again(s3, calls):
    write(**{"config.yaml": "c", "model.keras": "m" * 20_000_000})
    assert "UploadPart" in calls
    (mirror().parent / "s3.db").unlink()
    calls.clear()
    write()
    assert not {"PutObject", "GetObject", "UploadPart"} & set(calls)


def test_a_run_deleted_there_is_gone_here_and_one_deleted_meanwhile_is_sent_whole(s3):
    write(**{"config.yaml": "c", "a": "1"})
    for key in there(s3):
        s3.delete_object(Bucket="pictures", Key=key)
    write()
    assert not path_of(RUN).exists()
    write(**{"config.yaml": "c", "a": "1"})
    folder = path_of(RUN)
    with synchronized([folder]):
        for key in there(s3):
            s3.delete_object(Bucket="pictures", Key=key)
        (folder / "a").write_text("2")
    assert there(s3) == {"runs/one/config.yaml": "c", "runs/one/a": "2"}


def test_a_database_travels_with_what_was_still_beside_it(s3, elsewhere):
    database = path_of(f"{RUN}/features.db")
    connection = None
    with synchronized([path_of(RUN)]):
        database.parent.mkdir(parents=True)
        connection = sqlite3.connect(database)
        connection.execute("PRAGMA journal_mode = WAL")
        with connection:
            connection.execute("CREATE TABLE t (x)")
            connection.execute("INSERT INTO t VALUES (7)")
        assert database.with_name("features.db-wal").stat().st_size > 0
    assert [each["Key"] for each in s3.list_objects_v2(Bucket="pictures")["Contents"]] == [
        "runs/one/features.db"
    ]
    connection.close()
    elsewhere()
    with sqlite3.connect(local(f"{RUN}/features.db")) as fetched:
        assert fetched.execute("SELECT x FROM t").fetchall() == [(7,)]


def test_the_data_may_be_the_bucket_that_the_run_is_in(s3):
    write(**{"config.yaml": "c", "checkpoints/last.npz": "1"})
    put(s3, photo="p")
    folder = path_of(RUN)
    with synchronized([folder]):
        (folder / "checkpoints" / "last.npz").unlink()
        (folder / "model.keras").write_text("m")
        local("s3://pictures")
        assert not (folder / "checkpoints" / "last.npz").exists()
        assert (mirror() / "pictures" / "photo").is_file()
    assert set(there(s3)) == {"photo", "runs/one/config.yaml", "runs/one/model.keras"}


def test_outputs_take_the_place_of_what_is_there(s3):
    put(s3, **{"grid.png": "old", "table/comparison.md": "old", "table/other": "stays"})
    picture, table = path_of("s3://pictures/grid.png"), path_of("s3://pictures/table")
    with synchronized(outputs=[picture, table]):
        picture.parent.mkdir(parents=True, exist_ok=True)
        picture.write_text("new")
        table.mkdir()
        (table / "comparison.md").write_text("new table")
    assert there(s3) == {
        "grid.png": "new",
        "table/comparison.md": "new table",
        "table/other": "stays",
    }


# --- mistakes -----------------------------------------------------------------------------------


def test_mistakes_are_one_line(s3):
    put(s3, **{"photos/a": "1"})
    for address, reason in [
        ("s3://no-such-bucket/x", "no bucket 'no-such-bucket'; check its name"),
        ("s3://no-such-bucket", "no bucket 'no-such-bucket'; check its name"),
        ("s3://pictures/photo", "nothing there; check the address"),
        ("s3://pictures/photos/b.jpg", "nothing there; check the address"),
        ("s3://x/y", "Invalid bucket name|no bucket|bucket"),
    ]:
        with pytest.raises(UserError, match=f"^{address}: .*({reason})"):
            local(address)
    assert local("s3://pictures/photo", missing_ok=True) == mirror() / "pictures" / "photo"
    with (
        pytest.raises(UserError, match="no bucket"),
        synchronized(outputs=[path_of("s3://nono/x")]),
    ):
        pytest.fail("the work is not begun")


def test_no_credentials(s3, monkeypatch):
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    with pytest.raises(UserError, match=r"^s3://pictures/a: .*credentials; set AWS_ACCESS_KEY_ID"):
        local("s3://pictures/a")


@pytest.mark.parametrize(
    ("name", "value", "reason"),
    [
        ("AWS_ENDPOINT_URL", "http://127.0.0.1:9", "Could not connect.*; check the network"),
        ("AWS_ENDPOINT_URL", "not an endpoint", "Invalid endpoint"),
        ("AWS_PROFILE", "nobody", "profile"),
    ],
)
def test_settings_that_lead_nowhere(s3, monkeypatch, name, value, reason):
    monkeypatch.setenv(name, value)
    with pytest.raises(UserError, match=rf"^s3://pictures/a: .*{reason}") as caught:
        local("s3://pictures/a")
    assert "\n" not in str(caught.value)


def test_access_denied(s3, s3_server):
    """The server checks who asks once its own switch for that is set."""
    from urllib.request import Request, urlopen

    put(s3, **{"photos/a": "1"})
    switch = f"{s3_server}/moto-api/reset-auth"
    plain = {"Content-Type": "text/plain"}
    urlopen(Request(switch, b"0", plain)).read()
    try:
        with pytest.raises(UserError, match=r"^s3://pictures/photos: .*(denied|refused)"):
            local("s3://pictures/photos")
    finally:
        urlopen(Request(switch, b"inf", plain)).read()


def test_s3fs_is_imported_only_for_an_address_and_its_lack_is_one_line(s3):
    code = """
        import sys
        from pathlib import Path
        from cbir_tf.commands import cli
        from cbir_tf.storage.remote import local, synchronized
        with synchronized([Path("/tmp")]):
            local("/tmp")
        assert not {"s3fs", "fsspec", "botocore"} & set(sys.modules)
        sys.modules["s3fs"] = None
        try:
            local("s3://pictures/a")
        except Exception as error:
            sys.exit(f"{type(error).__name__}: {error}")
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True, check=False
    )
    assert re.fullmatch(
        r"UserError: s3://pictures/a: needs s3fs; pip install 'cbir-tf\[s3\]'\n", done.stderr
    )


def test_a_failure_to_send_does_not_hide_why_the_command_failed(s3, monkeypatch, caplog):
    folder = path_of(RUN)
    logging.getLogger("cbir_tf").propagate = True
    with pytest.raises(UserError, match="the command's own"), synchronized([folder]):
        folder.mkdir(parents=True)
        (folder / "a").write_text("1")
        monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
        raise UserError("the command's own")
    assert f"{RUN}: Could not connect" in caplog.text
