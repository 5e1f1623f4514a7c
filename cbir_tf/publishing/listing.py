"""The releases of a registry as records and as a table."""

from __future__ import annotations

from typing import Any

from cbir_tf.errors import UserError
from cbir_tf.evaluation.table import markdown
from cbir_tf.releases.fetch import is_fetched
from cbir_tf.releases.registry import Registry


def release_records(registry: Registry) -> list[dict[str, Any]]:
    """The fields of each entry of a registry, and whether it is `fetched`."""
    return [each.model_dump() | {"fetched": is_fetched(each)} for each in registry.entries]


def format_releases(registry: Registry) -> str:
    """The releases of a registry as a Markdown table.

    Raises:
        UserError: there are none.
    """
    if not registry.entries:
        raise UserError(registry.why_empty())
    rows = [
        (
            str(each.reference),
            each.licence or "not stated",
            "yes" if is_fetched(each) else "no",
            each.address,
        )
        for each in registry.entries
    ]
    return markdown(("release", "licence", "fetched", "address"), rows)
