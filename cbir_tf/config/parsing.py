"""Configuration as text: reading YAML, applying overrides, explaining mistakes, listing keys."""

from __future__ import annotations

import types
import typing
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import BaseModel, ValidationError
from yaml.reader import ReaderError

from cbir_tf.errors import UserError, nearest


def named(value: Any) -> Any:
    """`flip` is short for `{name: flip}`."""
    return {"name": value} if isinstance(value, str) else value


def listed(value: Any) -> Any:
    """One value is short for a list of it."""
    return [value] if isinstance(value, (str, Path)) else value


def merged(defaults: dict[str, Any], values: dict[str, Any]) -> dict[str, Any]:
    """Nested values, with defaults for the keys that they leave out."""
    result = defaults | values
    for key in defaults.keys() & values.keys():
        if isinstance(defaults[key], dict) and isinstance(values[key], dict):
            result[key] = merged(defaults[key], values[key])
    return result


class _UniqueKeyLoader(yaml.SafeLoader):
    """A key given twice is a mistake, which plain YAML loading hides."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen = set()
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=deep)
            if key in seen:
                raise yaml.constructor.ConstructorError(
                    None, None, f"key {key!r} is given twice", key_node.start_mark
                )
            seen.add(key)
        return super().construct_mapping(node, deep)


def read_yaml(path: Path) -> dict[str, Any]:
    """The mapping in a YAML file.

    Raises:
        UserError: missing, unreadable or malformed, or a key given twice.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        others = [str(each) for each in sorted(path.parent.glob("*.y*ml"))]
        hint = nearest(str(path), others) if others else "give the path of a YAML file"
        raise UserError(f"{path}: no such configuration file; {hint}") from None
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(
            f"{path}: could not be read as a configuration file ({error}); check the file"
        ) from None
    try:
        values = yaml.load(text, Loader=_UniqueKeyLoader)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = f" line {mark.line + 1}:" if mark else ""
        problem = getattr(error, "problem", None) or "not YAML"
        raise UserError(f"{path}:{line} {problem}; correct the YAML") from None
    if values is None:
        return {}
    if not isinstance(values, dict):
        raise UserError(
            f"{path}: expected 'key: value' lines, got a {type(values).__name__}; correct it"
        )
    return values


def apply_override(values: dict[str, Any], override: str) -> None:
    """Set one `section.key=value` in a nested mapping; the value is YAML.

    Raises:
        UserError: it is not of this form.
    """
    key, equals, text = override.partition("=")
    if not equals or not key:
        raise UserError(
            f"{override!r}: not a setting; write section.key=value, as in loss.margin=0.1"
        )
    try:
        value = yaml.safe_load(text)
    except ReaderError:  # YAML has no way to write a file name that is not UTF-8
        value = text
    except yaml.YAMLError:
        raise UserError(f"{override!r}: {text!r} is not a YAML value; quote it") from None
    *parents, last = key.split(".")
    here = values
    for parent in parents:
        inner = here.get(parent)
        if isinstance(inner, str):
            inner = named(inner)
        here[parent] = inner = dict(inner) if isinstance(inner, dict) else {}
        here = inner
    here[last] = value


# Pydantic's messages name types of Python; these name what stands in the file.
_PLAIN = {
    "int_from_float": "should be a whole number",
    "int_parsing": "should be a whole number",
    "int_type": "should be a whole number",
    "float_parsing": "should be a number",
    "float_type": "should be a number",
    "bool_parsing": "should be true or false",
    "bool_type": "should be true or false",
    "string_type": "should be text",
    "path_type": "should be a path",
    "dict_type": "should be a section, {{key: value, ...}}",
    "tuple_type": "should be a list",
    "too_short": "should have at least {min_length} value(s)",
    "too_long": "should have at most {max_length} value(s)",
    "missing": "is missing",
    "model_type": "should be a section, {{key: value, ...}}",
    "model_attributes_type": "should be a section, {{key: value, ...}}",
    "string_pattern_mismatch": "may hold only letters, digits, '.', '_' and '-'",
    "finite_number": "should be a finite number",
}


def location(error: ValidationError, root: type[BaseModel]) -> str:
    """Key of the first mistake, as the user writes it: `data.image_size[0]`."""
    return _dotted(_place(error, root)[1])


def _place(error: ValidationError, root: type[BaseModel]) -> tuple[type[BaseModel], list[str]]:
    """The section of the first mistake and the parts of its key; of a wrong choice, its name."""
    first = error.errors()[0]
    section, place = _descend(root, [str(part) for part in first["loc"]])
    wrong_choice = first["type"].startswith("union_tag")
    return section, [*place, "name"] if wrong_choice else place


def _dotted(place: list[str]) -> str:
    parts = (f"[{part}]" if part.isdigit() else f".{part}" for part in place)
    return "".join(parts).removeprefix(".")


def explain(error: ValidationError, root: type[BaseModel]) -> str:
    """The first mistake in one line: key, mistake, possible values."""
    first = error.errors()[0]
    section, place = _place(error, root)
    key = _dotted(place)
    if first["type"] == "extra_forbidden":
        return f"unknown key {key!r}: {nearest(place[-1], section.model_fields)}"
    if first["type"].startswith("union_tag"):
        context = first.get("ctx", {})
        tags = [tag.strip().strip("'") for tag in context.get("expected_tags", "").split(",")]
        given = context.get("tag", first["input"])
        return f"{key}: no {given!r}; {nearest(str(given), [tag for tag in tags if tag])}"
    if first["type"] == "literal_error":
        options = [
            each.strip(" '") for each in first["ctx"]["expected"].replace(" or ", ",").split(",")
        ]
        return f"{key}: no {first['input']!r}; {nearest(str(first['input']), options)}"
    message = first["msg"].removeprefix("Value error, ")
    if first["type"] == "value_error":
        return message
    if first["type"] in _PLAIN:
        message = _PLAIN[first["type"]].format(**first.get("ctx", {}))
    return f"{key}: {message[0].lower()}{message[1:]}, got {first['input']!r}"


def _descend(root: type[BaseModel], parts: list[str]) -> tuple[type[BaseModel], list[str]]:
    """Follow an error's location through nested sections, leaving out pydantic's union tags.

    Returns:
        The innermost section, and the location as the user writes it.
    """
    section, place, options = root, [], [root]
    for part in parts:
        chosen = [each for each in options if len(options) > 1 and _tag(each) == part]
        if chosen:
            options = chosen
        elif part.isdigit():
            place.append(part)
        elif len(options) == 1:
            section = options[0]
            place.append(part)
            field = section.model_fields.get(part)
            options = _sections(field.annotation) if field else []
    return section, place


def _tag(section: type[BaseModel]) -> str:
    """The name that chooses this section among several."""
    return str(section.model_fields["name"].default)


def _sections(annotation: Any) -> list[type[BaseModel]]:
    """The sections within a type, in order."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [each for inner in typing.get_args(annotation) for each in _sections(inner)]


def flat(values: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested values by their dotted key."""
    result: dict[str, Any] = {}
    for key, value in values.items():
        if isinstance(value, dict) and value:
            result |= flat(value, f"{prefix}{key}.")
        else:
            result[f"{prefix}{key}"] = value
    return result


def describe_keys(section: type[BaseModel], prefix: str = "") -> Iterator[str]:
    """One help line for every key: name, default, type or choices, meaning."""
    for name, field in section.model_fields.items():
        inner = _sections(field.annotation)
        meaning = " ".join((field.description or "").split())
        if len(inner) == 1 and field.annotation is inner[0]:
            yield from describe_keys(inner[0], f"{prefix}{name}.")
            continue
        default = field.get_default()
        shown = _tag(type(default)) if isinstance(default, BaseModel) else default
        shown = list(shown) if isinstance(shown, tuple) else shown
        text = "null" if shown is None else str(shown).lower() if isinstance(shown, bool) else shown
        choices = _choices(field.annotation)
        parts = [f"{prefix}{name} = {text!s}", choices, meaning]
        yield "  ".join(part for part in parts if part)
        for option in inner:
            tag = _tag(option)
            for line in describe_keys(option, f"{prefix}{name}[{tag}]."):
                if ".name = " not in line.split("  ")[0]:
                    yield line


def _choices(annotation: Any) -> str:
    if typing.get_origin(annotation) is Literal:
        return "(" + " | ".join(str(each) for each in typing.get_args(annotation)) + ")"
    if typing.get_origin(annotation) in (typing.Union, types.UnionType):
        return next(filter(None, map(_choices, typing.get_args(annotation))), "")
    return ""
