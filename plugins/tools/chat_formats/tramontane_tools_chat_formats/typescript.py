# SPDX-License-Identifier: Apache-2.0
"""Functions and their JSON schemas as TypeScript declarations, the way Harmony tells a model of its tools."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

_MOST_LEVELS = 32


def namespace(name: str, functions: Sequence[Mapping[str, Any]], about: str = "") -> str:
    """A heading and a namespace with one type for each function."""
    opening = f"## {name}\n\n{_comment(about)}namespace {name} {{\n\n"
    return opening + "".join(map(_function, functions)) + f"}} // namespace {name}"


def _function(function: Mapping[str, Any]) -> str:
    parameters = function.get("parameters") or {}
    about = _comment(function.get("description") or "")
    if not parameters.get("properties"):
        return f"{about}type {function['name']} = () => any;\n\n"
    note = f"// {parameters['description']}\n" if parameters.get("description") else ""
    return f"{about}type {function['name']} = (_: {note}{_object(parameters, 0)}) => any;\n\n"


def _object(schema: Mapping[str, Any], level: int) -> str:
    required = schema.get("required") or ()
    return "{\n" + "".join(_property(k, v, k in required, level) for k, v in schema["properties"].items()) + "}"


def _property(name: str, schema: Mapping[str, Any], required: bool, level: int) -> str:
    lines = f"// {schema['title']}\n//\n" if schema.get("title") else ""
    lines += _comment(schema.get("description") or "")
    if schema.get("examples"):
        lines += "// Examples:\n" + "".join(f"// - {_json(example)}\n" for example in schema["examples"])
    lines += "" if "oneOf" not in schema or "default" not in schema else f"// default: {_default(schema)}\n"
    head = f"{name}{'' if required else '?'}:"
    if "oneOf" in schema:
        return f"{lines}{head}\n" + "".join(_variant(one, level) for one in schema["oneOf"]) + ",\n"
    default = f" // default: {_default(schema)}" if "default" in schema else ""
    return f"{lines}{head} {_type(schema, level)},{default}\n"


def _variant(schema: Mapping[str, Any], level: int) -> str:
    notes = [schema["description"]] if schema.get("description") else []
    notes += [f"default: {_default(schema)}"] if "default" in schema else []
    return f" | {_type(schema, level)}{' // ' + ' '.join(notes) if notes else ''}\n"


def _type(schema: Any, level: int) -> str:
    if not isinstance(schema, Mapping) or level > _MOST_LEVELS:
        return "any"
    found = _plain_type(schema, level)
    return f"{found} | null" if schema.get("nullable") and "null" not in found else found


def _plain_type(schema: Mapping[str, Any], level: int) -> str:
    kind = schema.get("type")
    if "oneOf" in schema or "anyOf" in schema:
        return " | ".join(_type(one, level + 1) for one in schema.get("oneOf") or schema["anyOf"])
    if isinstance(kind, list):
        return " | ".join("number" if one == "integer" else str(one) for one in kind)
    if schema.get("enum") is not None:
        return " | ".join(map(_json, schema["enum"]))
    if kind == "object":
        return _object(schema, level + 1) if schema.get("properties") else "object"
    if kind == "array":
        inner = _type(schema["items"], level + 1) if "items" in schema else "any"
        return f"({inner})[]" if " | " in inner else f"{inner}[]"
    return {"integer": "number", "number": "number", "string": "string", "boolean": "boolean", "null": "null"}.get(
        str(kind), "any"
    )


def _default(schema: Mapping[str, Any]) -> str:
    """A choice of an enumeration stands without quotes."""
    value = schema["default"]
    return value if isinstance(value, str) and "enum" in schema else _json(value)


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)


def _comment(text: str) -> str:
    return "".join(f"// {line}\n" for line in text.splitlines())
