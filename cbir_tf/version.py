"""The version of this package; pyproject.toml holds it, and the installed metadata repeats it."""

from __future__ import annotations

import tomllib
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

_NAME = "cbir-tf"


def _version() -> str:
    """A checkout's pyproject.toml first, as the installed package may be another version."""
    project_file = Path(__file__).resolve().parents[1] / "pyproject.toml"
    if project_file.is_file():
        project = tomllib.loads(project_file.read_text(encoding="utf-8")).get("project", {})
        if project.get("name") == _NAME and "version" in project:
            return str(project["version"])
    try:
        return version(_NAME)
    except PackageNotFoundError:
        return "unknown"


__version__ = _version()
