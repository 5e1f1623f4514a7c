"""Which parts of the service may import which."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

SERVER = Path(__file__).parents[2] / "cbir_tf" / "server"


def imported(file: Path) -> set[str]:
    names: set[str] = set()
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {each.name for each in node.names}
        elif isinstance(node, ast.ImportFrom):
            names |= {str(node.module), *(f"{node.module}.{each.name}" for each in node.names)}
    return names


@pytest.mark.parametrize(
    ("part", "unwanted"),
    [
        (".", "cbir_tf.commands"),
        ("pipeline", "cbir_tf.server.http"),
        ("pipeline", "fastapi"),
        ("pipeline", "starlette"),
    ],
)
def test_imports_point_down(part, unwanted):
    files = sorted((SERVER / part).rglob("*.py"))
    assert len(files) > 5
    for file in files:
        assert not any(
            each == unwanted or each.startswith(f"{unwanted}.") for each in imported(file)
        ), file
