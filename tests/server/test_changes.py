"""Images added and removed while the service runs."""

from __future__ import annotations

import io
import json
import shutil
import signal
import urllib.request
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from cbir_tf import Retriever, Run
from cbir_tf.commands.cli import main
from cbir_tf.data.added import added_images, id_of
from cbir_tf.features.store import FeatureStore


def painted(seed: int, colour: tuple[int, int, int] = (40, 180, 60)) -> bytes:
    pixels = np.random.default_rng(seed).integers(0, 60, (48, 64, 3)) + colour
    content = io.BytesIO()
    Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(content, "PNG")
    return content.getvalue()


def ids(answer) -> list[str]:
    assert answer.status_code == 200, answer.text
    return [each["id"] for each in answer.json()["neighbours"]]


def columns(client) -> list[str]:
    return client.get("/info").json()["columns"]


@pytest.fixture
def folder(run_folder: Path) -> Path:
    return run_folder


def test_an_added_picture_is_found_filtered_shown_and_there_after_a_restart(serving, folder):
    picture = painted(1)
    with serving(folder) as client:
        about = {"label": "lime", "metadata": json.dumps({"year": 2020, "place": "Kyoto"})}
        added = client.post("/images", files={"file": picture}, data=about)
        assert added.status_code == 201
        id_ = added.json()["id"]
        assert added.json()["new"] and added.json()["images"] == 37
    for _ in range(2):  # at once, and after another start
        with serving(folder) as client:
            answer = client.post("/search", files={"file": picture}, data={"k": 1})
            assert answer.json()["neighbours"][0]["label"] == "lime"
            assert answer.json()["neighbours"][0]["distance"] == pytest.approx(0, abs=1e-6)
            asked = {"id": "green/00.jpg", "k": 1}
            for where in ("label=lime", "year>=2020", "place=Kyoto", "id=" + id_):
                assert ids(client.post("/search", json={**asked, "where": where})) == [id_]
            assert client.get(added.json()["image"]).content == picture
            assert columns(client) == ["place", "year"]


def test_the_same_picture_is_the_same_image_with_its_new_description(serving, folder):
    with serving(folder) as client:
        first = client.post("/images", files={"file": painted(1)}, data={"label": "red"})
        second = client.post("/images", files={"file": painted(1)}, data={"label": "blue"})
        assert (first.status_code, second.status_code) == (201, 200)
        assert first.json()["id"] == second.json()["id"] and second.json()["images"] == 37
        answer = client.post("/search", files={"file": painted(1)}, data={"k": 1})
        assert answer.json()["neighbours"][0]["label"] == "blue"


def test_columns_go_with_the_last_image_that_has_them(serving, folder):
    with serving(folder) as client:
        about = {"metadata": json.dumps({"year": 2020})}
        added = client.post("/images", files={"file": painted(1)}, data=about).json()
        assert columns(client) == ["year"]
        about = {"metadata": json.dumps({"place": "Kyoto"})}
        client.post("/images", files={"file": painted(1)}, data=about)
        assert columns(client) == ["place"]
        assert client.delete(added["image"]).status_code == 200
        assert columns(client) == []


def test_what_an_extraction_has_taken_out_meanwhile_can_be_removed(serving, folder):
    with serving(folder) as client:
        with FeatureStore.open(folder / "features.db") as store:
            store.remove(["green/03.jpg"])
        assert client.delete("/images/green%2F03.jpg").status_code == 200
        everything = client.post("/search", json={"id": "green/00.jpg", "k": 34})
        assert "green/03.jpg" not in ids(everything)


def test_removed_images_are_not_found_and_other_files_stay(serving, folder, photos):
    with serving(folder) as client:
        added = client.post("/images", files={"file": painted(1)}).json()
        for address in (added["image"], "/images/green%2F03.jpg"):
            assert client.delete(address).status_code == 200
            assert client.delete(address).status_code == 404
            assert client.get(address).status_code == 404
        everything = client.post("/search", json={"id": "green/00.jpg", "k": 34})
        assert not {added["id"], "green/03.jpg"} & set(ids(everything))
    assert not any((folder / "added").iterdir()) and (photos / "green/03.jpg").is_file()
    with serving(folder) as client:
        assert client.get("/info").json()["images"] == 35


@pytest.mark.parametrize("search", [{}, {"search.database_augmentation": "3"}])
def test_a_changed_gallery_is_searched_as_one_that_is_opened_again(serving, folder, search):
    overrides = [f"{name}={value}" for name, value in search.items()]
    if search:  # moves neighbours towards the new image only at the next start
        overrides.append("search.two_step=none")
    asked = [{"k": 12, "two_step": each, "re_ranking": other}
             for each in ("none", "knn", "svm") for other in ("none", "k_reciprocal")]  # fmt: skip
    queries = [painted(seed, (220, 40, 40)) for seed in range(3)]

    def answers(client) -> list:
        found = [client.post("/search", files={"file": query}, data=each).json()
                 for query in queries for each in asked]  # fmt: skip
        return [(each["prediction"], [(n["id"], n["label"], round(n["distance"], 4))
                 for n in each["neighbours"]]) for each in found]  # fmt: skip

    with serving(folder, *overrides) as client:
        answers(client)  # the classifiers are fitted before the changes
        for seed, label in ((10, None), (11, "red"), (12, "violet")):
            data = {} if label is None else {"label": label}
            client.post("/images", files={"file": painted(seed, (200, 30, 60))}, data=data)
        client.delete("/images/red%2F05.jpg")
        client.delete("/images/" + id_of(painted(10, (200, 30, 60))).replace("/", "%2F"))
        changed = answers(client)
    if search:  # both are found at least
        assert all(id_of(painted(11, (200, 30, 60))) in {n[0] for n in each[1]} for each in changed)
        return
    with serving(folder) as client:
        again = answers(client)
    for one, other in zip(changed, again, strict=True):
        # Probabilities are learnt from the training images, of which one has gone.
        assert (one[0] or {}).get("name") == (other[0] or {}).get("name")
    plain = range(0, len(asked) * len(queries), len(asked))
    assert [changed[row][1] for row in plain] == [again[row][1] for row in plain]


@pytest.mark.slow
def test_added_pictures_outlive_an_extraction_and_even_the_store(serving, folder, photos, tmp_path):
    kept, gone = painted(1), painted(2)
    with serving(folder) as client:
        about = {"label": "lime", "metadata": '{"year": 2020}'}
        client.post("/images", files={"file": kept}, data=about)
        client.delete(client.post("/images", files={"file": gone}).json()["image"])
    assert main(["extract", "--run", str(folder), "--images", str(photos / "red")]) == 0
    # Nor is it another image if the run's folder is among those extracted.
    assert main(["extract", "--run", str(folder), "--images", str(folder)]) == 0
    for each in folder.glob("features.db*"):
        each.unlink()
    assert main(["extract", "--run", str(folder), "--split", "test"]) == 0
    retriever = Retriever.open(folder)
    record = retriever.record(id_of(kept))
    assert retriever.label(record.id) == "lime" and record.metadata == {"year": 2020}
    assert id_of(gone) not in retriever.embeddings.ids
    assert sum(each.startswith("added/") for each in retriever.embeddings.ids.tolist()) == 1
    retriever.close()


def test_an_image_that_cannot_be_stored_is_not_added(serving, folder):
    (folder / "added").write_text("in the way")
    with serving(folder) as client:
        answer = client.post("/images", files={"file": painted(1)})
        assert answer.status_code == 507 and "disk" in answer.json()["error"]
        assert str(folder) not in answer.text
        assert client.get("/info").json()["images"] == 36


def test_a_service_may_be_read_only(serving, folder):
    with serving(folder, "server.read_only=true") as client:
        assert client.post("/images", files={"file": painted(1)}).status_code == 403
        assert client.delete("/images/green%2F03.jpg").status_code == 403
        assert client.get("/info").json()["read_only"]


@pytest.mark.slow
def test_answered_additions_survive_kill_9_and_ctrl_c_lets_running_requests_end(start, folder):
    process, address = start(folder)

    def post(path: str, picture: bytes, **fields: str) -> dict:
        boundary = "----boundary"
        parts = [f'--{boundary}\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n{value}\r\n'
                 for name, value in fields.items()]  # fmt: skip
        head = f'--{boundary}\r\nContent-Disposition: form-data; name="file"; filename="a"\r\n\r\n'
        body = (
            "".join(parts).encode() + head.encode() + picture + f"\r\n--{boundary}--\r\n".encode()
        )
        kind = {"Content-Type": f"multipart/form-data; boundary={boundary}"}
        with urllib.request.urlopen(urllib.request.Request(address + path, body, kind)) as answer:
            return json.load(answer)

    added = [post("/images", painted(seed), label="lime")["id"] for seed in range(3)]
    post("/search", painted(0))
    loaded = Path(f"/proc/{process.pid}/maps").read_text(encoding="utf-8")
    assert "onnxruntime" in loaded and "tensorflow" not in loaded
    process.send_signal(signal.SIGKILL)
    process.wait()
    run = Run.open(folder)
    assert sorted(added_images(run.added).ids.tolist()) == sorted(added)
    retriever = Retriever(run)
    assert set(added) <= set(retriever.embeddings.ids.tolist())
    retriever.close()

    process, address = start(folder)
    from concurrent.futures import ThreadPoolExecutor

    with ThreadPoolExecutor(8) as pool:
        post("/search", painted(0))
        running = [pool.submit(post, "/search", painted(seed), k="5") for seed in range(8)]
        running[0].result()
        process.send_signal(signal.SIGINT)
        done = [each.exception() for each in running]
    _, log = process.communicate(timeout=60)
    assert process.returncode == 0
    assert "Traceback" not in log
    # Those that had reached it were answered; the others were told at once that no one listens.
    lines = [json.loads(line) for line in log.splitlines()]
    assert (
        sum(each is None for each in done)
        == sum(line.get("route") == "/search" and line["status"] == 200 for line in lines) - 1
    )
    shutil.rmtree(folder)


def test_numbers_and_names_added_are_found_as_they_were_written(serving, folder):
    """2**53 + 1 is not 2**53, 0012 is not 12, and a name has two Unicode forms."""
    with serving(folder) as client:

        def add(number: int, label: str, metadata: str) -> str:
            about = {"label": label, "metadata": metadata}
            return client.post("/images", files={"file": painted(number)}, data=about).json()["id"]

        first = add(1, "Caf\u00e9", '{"serial": 9007199254740992, "sku": "12"}')
        second = add(2, "Cafe\u0301", '{"serial": 9007199254740993, "sku": "0012"}')

        def found(where: str) -> list[str]:
            answer = client.post("/search", json={"id": "green/00.jpg", "k": 2, "where": where})
            return sorted(ids(answer))

        assert found("serial=9007199254740993") == [second]
        assert found("serial<9007199254740993") == [first]
        assert found("sku=12") == [first]
        assert found("sku=0012") == [second]
        assert found("label=Caf\u00e9") == found("label=Cafe\u0301") == sorted([first, second])
