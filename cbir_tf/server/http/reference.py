"""The documentation of the API as a page of its own, which loads nothing from anywhere."""

from __future__ import annotations

import json
from html import escape
from typing import Any

_PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}: API</title>
<link rel="icon" href="/icon.svg" type="image/svg+xml">
<link rel="stylesheet" href="/docs.css">
</head>
<body>
<main>
<h1>{title}: API</h1>
<p>{description}</p>
<p>For programs: <a href="/openapi.json">openapi.json</a></p>
{operations}
</main>
</body>
</html>
"""

STYLE = """:root { color-scheme: light dark; }
body { font: 16px/1.5 system-ui, sans-serif; margin: 0 auto; max-width: 60rem; padding: 1rem; }
section { border-top: 1px solid #8888; padding: .5rem 0 1rem; }
h2 { font-size: 1.1rem; font-family: ui-monospace, monospace; overflow-wrap: anywhere; }
table { border-collapse: collapse; width: 100%; }
td { border-top: 1px solid #8884; padding: .2rem .8rem .2rem 0; vertical-align: top; }
td:first-child { font-family: ui-monospace, monospace; white-space: nowrap; }
"""


def reference_page(openapi: dict[str, Any]) -> str:
    """An HTML page of all operations: their fields, and what they answer."""
    operations = [
        _operation(method, path, operation, openapi)
        for path, methods in openapi["paths"].items()
        for method, operation in methods.items()
    ]
    about = openapi["info"]
    return _PAGE.format(
        title=escape(about["title"]),
        description=escape(about.get("description", "")),
        operations="\n".join(operations),
    )


def _operation(method: str, path: str, operation: dict[str, Any], openapi: dict[str, Any]) -> str:
    parts = [
        f"<section><h2>{method.upper()} {escape(path)}</h2>",
        f"<p>{escape(operation.get('summary', ''))}.</p>",
    ]
    asked = [(each["name"], each.get("description", ""), each["schema"]) for each in
             operation.get("parameters", ())]  # fmt: skip
    parts.append(_table("Parameters", asked))
    for media, content in operation.get("requestBody", {}).get("content", {}).items():
        parts.append(_table(f"Body as {media}", _fields(content["schema"], openapi)))
    for status, answer in operation.get("responses", {}).items():
        content = answer.get("content", {}).get("application/json")
        if content and status.startswith("2") and content.get("schema"):
            parts.append(_table(f"Answer {status}", _fields(content["schema"], openapi)))
    others = [status for status in operation.get("responses", {}) if status[0] in "45"]
    if others:
        parts.append(f'<p>Else {", ".join(others)} with {{"error": "what is wrong"}}.</p>')
    return "\n".join([*filter(None, parts), "</section>"])


def _fields(
    schema: dict[str, Any], openapi: dict[str, Any]
) -> list[tuple[str, str, dict[str, Any]]]:
    if "$ref" in schema:
        schema = openapi["components"]["schemas"][schema["$ref"].rpartition("/")[2]]
    fields = schema.get("properties", {})
    return [(name, each.get("description", ""), each) for name, each in fields.items()]


def _table(title: str, fields: list[tuple[str, str, dict[str, Any]]]) -> str:
    if not fields:
        return ""
    rows = [
        f"<tr><td>{escape(name)}</td><td>{escape(_kind(schema))}</td><td>{escape(meaning)}</td></tr>"
        for name, meaning, schema in fields
    ]
    return f"<h3>{escape(title)}</h3>\n<table>{''.join(rows)}</table>"


def _kind(schema: dict[str, Any]) -> str:
    if "anyOf" in schema:
        return " or ".join(_kind(each) for each in schema["anyOf"])
    if "$ref" in schema:
        return str(schema["$ref"].rpartition("/")[2])
    if schema.get("type") == "array":
        return f"list of {_kind(schema.get('items', schema.get('prefixItems', [{}])[0]))}"
    kind = str(schema.get("type", "anything"))
    default = schema.get("default")
    return kind if default in (None, []) else f"{kind} = {json.dumps(default)}"
