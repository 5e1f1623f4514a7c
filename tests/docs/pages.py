"""The documentation's pages, and the blocks of code in them."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGES = [
    ROOT / "README.md",
    ROOT / "CONTRIBUTING.md",
    ROOT / "SECURITY.md",
    ROOT / "weights" / "README.md",
    *sorted((ROOT / "docs").rglob("*.md")),
]

SHELL = ("bash", "sh", "shell", "console")
SHOWN = ("text", "json", "csv")
"""Languages of blocks that show output or a file and are not run."""

_FENCE = re.compile(
    r"^(?P<indent> *)```(?P<language>\w*)[^\n]*\n(?P<text>.*?)^(?P=indent)```$", re.M | re.S
)
_REASON = re.compile(r"<!-- not (?:run|a configuration): (?P<reason>\S[^\n]*?) -->\s*\Z")


@dataclass(frozen=True)
class Block:
    """A fenced block.

    Attributes:
        page: the file it is in.
        line: number of its first line.
        language: as the fence names it.
        text: without the fence's indentation.
        reason: why it is not run; None: it is.
    """

    page: Path
    line: int
    language: str
    text: str
    reason: str | None

    def __str__(self) -> str:
        return f"{self.page.relative_to(ROOT)}:{self.line}"

    def commands(self) -> Iterator[str]:
        """The commands of a shell block, each on one line."""
        for line in re.sub(r"\\\n\s*", "", self.text).splitlines():
            if shlex.split(line, comments=True):
                yield line


def blocks(page: Path) -> list[Block]:
    """All blocks of a page, in order."""
    text = page.read_text(encoding="utf-8")
    found = []
    for match in _FENCE.finditer(text):
        before = text[: match.start()]
        reason = _REASON.search(before)
        indent = match["indent"]
        body = re.sub(rf"^{indent}", "", match["text"], flags=re.M)
        found.append(
            Block(
                page, before.count("\n") + 1, match["language"], body, reason and reason["reason"]
            )
        )
    return found
