"""Keys of older versions are still read."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest

from cbir_tf.config import Config
from cbir_tf.config.renamed import RENAMED, _log_once
from cbir_tf.config.server import Server
from cbir_tf.errors import UserError

OLD = Path(__file__).parents[1] / "retrieval" / "run_0_1_0" / "config.yaml"


@pytest.fixture(autouse=True)
def logged(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(logging.getLogger("cbir_tf"), "propagate", True)
    caplog.set_level(logging.INFO, logger="cbir_tf")
    _log_once.cache_clear()
    return caplog


def test_a_run_of_version_0_1_0_is_read_and_the_log_names_the_new_keys(logged):
    config = Config.load(OLD)
    assert config.server.max_in_flight == 50 and config.server.request_timeout == 5
    assert config.server.max_neighbours == 1000 and config.plots.layout == "umap"
    (line,) = logged.messages
    assert "server.waiting is now server.max_in_flight" in line and str(OLD) in line
    assert Config.load(OLD) == config and len(logged.messages) == 1


def test_every_old_key_is_one_of_that_run_and_every_new_one_of_today():
    text = OLD.read_text(encoding="utf-8")
    for old, new in RENAMED.items():
        section, _, key = old.partition(".")
        assert f"\n  {key}: " in text
        assert new.partition(".")[0] == section
        assert section != "server" or new.partition(".")[2] in Server.model_fields


def test_a_written_configuration_has_only_new_keys(tmp_path, logged):
    written = tmp_path / "new.yaml"
    written.write_text(Config.load(OLD).dump())
    logged.clear()
    assert Config.load(written) == Config.load(OLD)
    assert not any(str(written) in line for line in logged.messages)


@pytest.mark.parametrize(
    "override", ["server.seconds=7", "server.request_timeout=7", "server={seconds: 7}"]
)
def test_an_override_goes_before_the_file_by_either_name(tmp_path, logged, override):
    for name in ("seconds", "request_timeout"):
        file = tmp_path / f"{name}.yaml"
        file.write_text(f"data: {{source: digits}}\nserver: {{{name}: 3}}\n")
        assert Config.load(file).server.request_timeout == 3
        assert Config.load(file, [override]).server.request_timeout == 7
    if override == "server.seconds=7":
        assert any(override in line and "request_timeout" in line for line in logged.messages)


def test_a_mistake_in_an_old_key_is_reported_under_its_new_name(tmp_path):
    file = tmp_path / "old.yaml"
    file.write_text("data: {source: digits}\nserver: {seconds: -1}\n")
    with pytest.raises(UserError, match=r"old\.yaml.*server\.request_timeout"):
        Config.load(file)
    with pytest.raises(UserError, match=r"server\.request_timeout=-1"):
        Config.load(OLD, ["server.seconds=-1"])


def test_old_and_new_name_of_a_key_together_are_refused(tmp_path):
    file = tmp_path / "both.yaml"
    file.write_text("data: {source: digits}\nplots: {projection: pca, layout: umap}\n")
    with pytest.raises(UserError, match=r"both\.yaml.*plots\.projection.*plots\.layout"):
        Config.load(file)
    values = {"data": {"source": "digits"}, "plots": {"projection": "pca"}}
    assert Config.check(values).plots.layout == "pca"
    assert values["plots"] == {"projection": "pca"}


def test_a_run_of_descriptors_keeps_its_former_default():
    values = {"data": {"source": "digits"}, "descriptors": ["hog"]}
    old = Config.check(values | {"training": {"epochs": 12, "monitor": "val_recall@1"}})
    assert old == Config.check(values) and not Config.check(values).differences(old)
    with pytest.raises(UserError, match="training does not apply"):
        Config.check(values | {"training": {"monitor": "val_loss"}})
