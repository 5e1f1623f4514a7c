"""Names, versions and the list of releases."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cbir_tf.errors import UserError
from cbir_tf.releases.registry import (
    Entry,
    Reference,
    Registry,
    checked_name,
    checked_version,
    registry_file,
    registry_to_write,
)

# The expression that semver.org suggests, less build metadata.
SEMVER = re.compile(
    r"^(0|[1-9]\d*)\.(0|[1-9]\d*)\.(0|[1-9]\d*)(?:-((?:0|[1-9]\d*|\d*[a-zA-Z-][0-9a-zA-Z-]*)"
    r"(?:\.(?:0|[1-9]\d*|\d*[a-zA-Z-][0-9a-zA-Z-]*))*))?\Z",
    re.ASCII,
)
DIGEST = "0" * 64


def entry(name: str, version: str, **changes: str) -> Entry:
    values = {"address": "somewhere", "sha256": DIGEST, "licence": "MIT"} | changes
    return Entry(name=name, version=version, **values)


PARTS = st.lists(st.sampled_from(["0", "1", "10", "01", ".", "-", "+", "a", "Z", "\n"]), max_size=9)


@given(PARTS.map("".join) | PARTS.map(lambda parts: "1.0.0-" + "".join(parts)))
def test_versions_are_those_of_semver_without_build_metadata(version):
    if SEMVER.match(version) and len(version) <= 64:
        assert checked_version(version) == version
    else:
        with pytest.raises(UserError, match="not a valid release version"):
            checked_version(version)


@given(st.text(max_size=8))
def test_a_name_is_a_safe_name_of_a_folder_a_tag_and_an_address(name):
    try:
        checked_name(name)
    except UserError as error:
        assert "\n" not in str(error)
    else:
        assert re.fullmatch(r"[a-z0-9._-]+", name) and ".." not in name
        assert name[0] not in ".-" and name[-1] not in ".-"


def test_releases_are_listed_in_their_order_and_an_entry_reads_back(tmp_path):
    file = tmp_path / "weights" / "registry.yaml"
    # https://semver.org, section 11, and numbers as numbers.
    ordered = ["1.0.0-alpha", "1.0.0-alpha.1", "1.0.0-alpha.beta", "1.0.0-beta", "1.0.0-beta.2"]
    ordered += ["1.0.0-beta.11", "1.0.0-rc.1", "1.0.0", "1.2.0", "1.10.0", "2.0.0"]
    for version in reversed(ordered):
        Registry.load(file).add(entry("b", version))
    Registry.load(file).add(entry("a", "9.9.9", address="s3://bucket/a-9.9.9"))
    loaded = Registry.load(file)
    assert [each.version for each in loaded.entries] == ["9.9.9", *ordered]
    assert loaded.find(Reference.of("release:a@9.9.9")) == entry(
        "a", "9.9.9", address="s3://bucket/a-9.9.9"
    )


def test_a_misspelt_release_gets_the_nearest_name(tmp_path):
    file = tmp_path / "registry.yaml"
    with pytest.raises(UserError, match="lists no releases"):
        Registry.load(file).find(Reference("digits", "1.0.0"))
    Registry.load(file).add(entry("digits", "1.0.0"))
    Registry.load(file).add(entry("flowers", "1.0.0"))
    registry = Registry.load(file)
    with pytest.raises(UserError, match=r"no release 'digit'; did you mean 'digits'\?"):
        registry.find(Reference("digit", "1.0.0"))
    with pytest.raises(UserError, match=r"no version 1\.0\.1; did you mean '1\.0\.0'\?"):
        registry.find(Reference("digits", "1.0.1"))
    with pytest.raises(UserError, match="write release:NAME@VERSION"):
        Reference.of("release:digits")


def test_a_version_is_never_replaced(tmp_path):
    file = tmp_path / "registry.yaml"
    Registry.load(file).add(entry("digits", "1.0.0"))
    before = file.read_bytes()
    with pytest.raises(UserError, match=r"lists another digits@1\.0\.0, at somewhere"):
        Registry.load(file).add(entry("digits", "1.0.0", sha256="1" * 64))
    assert file.read_bytes() == before
    Registry.load(file).add(entry("digits", "1.0.0", address="elsewhere"))  # the same, moved
    assert Registry.load(file).entries[0].address == "elsewhere"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("releases: [{name: a, version: 1.0.0}]", r"releases\[0\]\.address: is missing"),
        ("released: []", "unknown key 'released': did you mean 'releases'"),
        ("releases: [", "correct the YAML"),
        (
            f"releases: [{{name: A, version: 1.0.0, address: x, sha256: '{DIGEST}', licence: ''}}]",
            "'A': not a valid release name",
        ),
        (
            "releases:\n"
            + 2 * f"- {{name: a, version: 1.0.0, address: x, sha256: '{DIGEST}', licence: ''}}\n",
            r"a@1\.0\.0 is listed twice",
        ),
    ],
)
def test_a_malformed_registry_is_a_one_line_error(tmp_path, text, said):
    file = tmp_path / "registry.yaml"
    file.write_text(text)
    with pytest.raises(UserError, match=said) as error:
        Registry.load(file)
    assert str(error.value).startswith(str(file)) and "\n" not in str(error.value)


def test_where_the_registry_is(tmp_path, monkeypatch):
    monkeypatch.delenv("CBIR_TF_REGISTRY", raising=False)
    monkeypatch.chdir(tmp_path)
    assert registry_file().resolve().parts[-2:] == ("weights", "registry.yaml")
    assert registry_file().is_file()  # that of the checkout
    assert registry_to_write().resolve() == tmp_path / "weights" / "registry.yaml"
    (tmp_path / "weights").mkdir()
    (tmp_path / "weights" / "registry.yaml").write_text("")
    assert registry_file().resolve() == (tmp_path / "weights" / "registry.yaml").resolve()
    monkeypatch.setenv("CBIR_TF_REGISTRY", "/somewhere/else.yaml")
    assert str(registry_file()) == "/somewhere/else.yaml"
    assert registry_to_write() == registry_file()


def test_a_release_is_never_listed_beside_the_code_unless_that_file_is_named(monkeypatch):
    monkeypatch.delenv("CBIR_TF_REGISTRY", raising=False)
    monkeypatch.chdir(Path(__file__).parents[2])
    with pytest.raises(UserError, match="--registry") as error:
        registry_to_write()
    assert "\n" not in str(error.value)
    monkeypatch.setenv("CBIR_TF_REGISTRY", "/somewhere/else.yaml")
    assert str(registry_to_write()) == "/somewhere/else.yaml"
