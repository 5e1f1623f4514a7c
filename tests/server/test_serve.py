"""The verb `serve`."""

from __future__ import annotations

import socket

import pytest

from cbir_tf.commands.cli import main
from cbir_tf.config import Config
from cbir_tf.run import Run
from cbir_tf.server.http.running import alone, listen
from cbir_tf.server.pipeline.explanation import why_not


def test_help_lists_the_keys_of_the_service(capsys):
    with pytest.raises(SystemExit) as ended:
        main(["serve", "--help"])
    assert ended.value.code == 0
    printed = capsys.readouterr().out
    assert "server.max_megapixels = 50" in printed and "search.re_ranking = none" in printed
    assert "CBIR_TF_API_KEY" in printed


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["server.max_megapixel=3"], "did you mean 'max_megapixels'"),
        (["server.rate=-1"], "server.rate: input should be greater than or equal to 0"),
        (["model.backbone=vgg16"], "server and search only"),
        (["search.test_time_augmentation=flip"], "with test-time augmentation none, and flip"),
        (["search.test_time_scales=[1,1.5]"], "augmentation none, and none at 1, 1.5"),
        (["search.pca=3000"], "lower search.pca"),
        (["--host", "192.0.2.1"], "choose another --host or --port"),
        (["--port", "99999"], "choose another --host or --port"),
    ],
)
def test_settings_that_cannot_be_served_are_a_one_line_error(
    trained_folder, capsys, arguments, words
):
    assert main(["serve", "--run", str(trained_folder), "--port", "0", *arguments]) == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert words in line


def test_a_port_that_is_taken_is_named(trained_folder, capsys):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        assert main(["serve", "--run", str(trained_folder), "--port", str(port)]) == 2
    assert f"127.0.0.1 port {port}" in capsys.readouterr().err


def test_no_part_of_an_answer_waits_for_the_client_to_acknowledge_another():
    with listen("127.0.0.1", 0) as listening, socket.create_connection(listening.getsockname()):
        connection, _ = listening.accept()
        with connection:
            assert connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)


def test_one_service_changes_a_run_at_a_time(trained_folder, capsys, start):
    with alone(Run.open(trained_folder)):
        assert main(["serve", "--run", str(trained_folder), "--port", "0"]) == 2
        (line,) = capsys.readouterr().err.strip().splitlines()
        assert "another service" in line and "server.read_only=true" in line
        start(trained_folder, "server.read_only=true")  # only looks
    start(trained_folder)


def test_what_a_run_cannot_explain_is_known_beforehand():
    folder = {"data": {"source": "folder", "path": "."}}
    assert why_not(Config.check(folder)) is None
    flipped = folder | {"search": {"test_time_augmentation": "flip"}}
    assert "several views" in str(why_not(Config.check(flipped)))
    scaled = folder | {"search": {"test_time_scales": [1, 1.5]}}
    assert "search.test_time_scales: none at 1, 1.5" in str(why_not(Config.check(scaled)))
    assert "descriptors" in str(why_not(Config.check(folder | {"descriptors": ["hog"]})))
