"""The registry of releases: a YAML file with their addresses and digests.

releases:
- name: digits
  version: 1.0.0
  address: digits-1.0.0    # a folder, relative to the registry's; or s3://, https://, hf://
  sha256: 5f0c...          # of the release's SHA256SUMS
  licence: Apache-2.0
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from pydantic import Field, ValidationError, model_validator

from cbir_tf.config.parsing import explain, read_yaml
from cbir_tf.config.section import Section
from cbir_tf.errors import UserError, nearest
from cbir_tf.storage.addresses import is_mirrored, path_of
from cbir_tf.storage.files import write_text
from cbir_tf.storage.remote import local, send

PREFIX = "release:"
DEFAULT = Path("weights/registry.yaml")

_NAME = re.compile(r"[a-z0-9]+(?:[._-][a-z0-9]+)*")
# https://semver.org less build metadata, which would give two releases one version.
_NUMBER = r"(?:0|[1-9][0-9]*)"
_PART = rf"(?:{_NUMBER}|[0-9]*[A-Za-z-][0-9A-Za-z-]*)"
_VERSION = re.compile(rf"{_NUMBER}\.{_NUMBER}\.{_NUMBER}(?:-{_PART}(?:\.{_PART})*)?")

_HEADER = "# Releases of weights, written by `cbir release publish`.\n"


def checked_name(name: str) -> str:
    """Check a release's name, which folders, tags and files also have.

    Raises:
        UserError: not a valid name.
    """
    if not _NAME.fullmatch(name) or len(name) > 64:
        raise UserError(
            f"{name!r}: not a valid release name; use up to 64 of a-z and 0-9, with single "
            "'-', '_' or '.' between them"
        )
    return name


def checked_version(version: str) -> str:
    """Check a semantic version without build metadata.

    Raises:
        UserError: not a valid version.
    """
    if not _VERSION.fullmatch(version) or len(version) > 64:
        raise UserError(
            f"{version!r}: not a valid release version; write 1.0.0 or, before it, 1.0.0-rc.1"
        )
    return version


@dataclass(frozen=True)
class Reference:
    """Name and version of a release."""

    name: str
    version: str

    def __str__(self) -> str:
        return f"{self.name}@{self.version}"

    @property
    def folder_name(self) -> str:
        """NAME-VERSION, the name of its folder."""
        return f"{self.name}-{self.version}"

    @classmethod
    def of(cls, text: str) -> Reference:
        """Read `NAME@VERSION` or `release:NAME@VERSION`.

        >>> Reference.of("release:digits@1.0.0")
        Reference(name='digits', version='1.0.0')

        Raises:
            UserError: not of this form.
        """
        name, at, version = text.removeprefix(PREFIX).partition("@")
        if not at:
            raise UserError(f"{text!r}: has no version; write {PREFIX}NAME@VERSION")
        return cls(checked_name(name), checked_version(version))


class Entry(Section):
    """A published release."""

    name: str
    version: str
    address: str = Field(min_length=1)
    """A folder, absolute or relative to the registry's, or an address s3://, https://, hf://."""
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")
    """Digest of its manifest."""
    licence: str
    """Licence of the weights; empty: not stated."""

    @model_validator(mode="after")
    def _named(self) -> Entry:
        try:
            Reference.of(f"{self.name}@{self.version}")
        except UserError as error:
            raise ValueError(str(error)) from None
        return self

    @property
    def reference(self) -> Reference:
        """Name and version."""
        return Reference(self.name, self.version)


class _Document(Section):
    releases: tuple[Entry, ...] = ()


@dataclass(frozen=True)
class Registry:
    """A registry file and what it lists."""

    file: Path
    entries: tuple[Entry, ...]

    @classmethod
    def load(cls, file: Path | None = None) -> Registry:
        """Read a registry file (None: `registry_file`); a missing one lists nothing.

        Raises:
            UserError: unreadable or malformed, or a release is listed twice.
        """
        file = local(file or registry_file(), missing_ok=True)
        if not file.exists():
            return cls(file, ())
        try:
            document = _Document.model_validate(read_yaml(file))
        except ValidationError as error:
            raise UserError(f"{file}: {explain(error, _Document)}") from None
        names = [str(each.reference) for each in document.releases]
        twice = [name for name in names if names.count(name) > 1]
        if twice:
            raise UserError(f"{file}: {twice[0]} is listed twice; remove one")
        return cls(file, document.releases)

    def get(self, reference: Reference) -> Entry | None:
        """The entry of a release, or None."""
        return next((each for each in self.entries if each.reference == reference), None)

    def find(self, reference: Reference) -> Entry:
        """The entry of a release.

        Raises:
            UserError: not listed; names the nearest.
        """
        entry = self.get(reference)
        if entry is not None:
            return entry
        if not self.entries:
            raise UserError(
                f"{PREFIX}{reference}: {self.file} lists no releases; name another registry file "
                "with --registry or CBIR_TF_REGISTRY"
            )
        names = sorted({each.name for each in self.entries})
        if reference.name not in names:
            hint = nearest(reference.name, names)
            raise UserError(f"{PREFIX}{reference}: no release {reference.name!r}; {hint}")
        versions = [each.version for each in self.entries if each.name == reference.name]
        raise UserError(
            f"{PREFIX}{reference}: {reference.name} has no version {reference.version}; "
            f"{nearest(reference.version, versions)}"
        )

    def check_free(self, entry: Entry) -> None:
        """Raise a UserError if another release of this name and version is listed."""
        listed = self.get(entry.reference)
        if listed is not None and listed.sha256 != entry.sha256:
            raise UserError(
                f"{self.file}: lists another {entry.reference}, at {listed.address}; a version is "
                "never replaced: pack with a higher --version"
            )

    def add(self, entry: Entry) -> None:
        """List a release, in order of names; an entry of the same one is replaced.

        Raises:
            UserError: as `check_free`, or the file cannot be written.
        """
        self.check_free(entry)
        others = [each for each in self.entries if each.reference != entry.reference]
        entries = sorted([*others, entry], key=lambda each: (each.name, _order(each.version)))
        values = {"releases": [each.model_dump() for each in entries]}
        write_text(self.file, _HEADER + yaml.safe_dump(values, sort_keys=False, width=100))
        if is_mirrored(self.file):
            send(self.file)


def registry_file() -> Path:
    """$CBIR_TF_REGISTRY, else weights/registry.yaml of the current folder, else of the checkout.

    Raises:
        UserError: the variable holds an address of another kind than s3://.
    """
    named = os.environ.get("CBIR_TF_REGISTRY")
    if named:
        return path_of(named)
    of_checkout = _of_checkout()
    return of_checkout if of_checkout.is_file() and not DEFAULT.is_file() else DEFAULT


def registry_to_write() -> Path:
    """Where `publish` lists a release: `registry_file`, but never the file beside the code.

    Raises:
        UserError: there is none but that, or as `registry_file`.
    """
    file = registry_file()
    if file.resolve() != _of_checkout():
        return file
    if DEFAULT.resolve() != file.resolve():
        return DEFAULT
    raise UserError(
        f"{DEFAULT}: lists the releases that come with this program; name a file of your own with "
        "--registry or CBIR_TF_REGISTRY"
    )


def _of_checkout() -> Path:
    return Path(__file__).resolve().parents[2] / DEFAULT


def _order(version: str) -> tuple[Any, ...]:
    """Semantic versions in their order: numbers as numbers, a pre-release before its release."""
    numbers, _, before = version.partition("-")
    parts = [
        (False, each.zfill(64)) if each.isdigit() else (True, each)
        for each in before.split(".")
        if before
    ]
    return [int(each) for each in numbers.split(".")], not before, parts
