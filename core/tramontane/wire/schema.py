# SPDX-License-Identifier: Apache-2.0
"""JSON Schemas of the attrs classes that requests are read into, so that an API's description cannot drift from it."""

from __future__ import annotations

import types
import typing
from collections.abc import Mapping
from typing import Any

import attrs

_PLAIN: dict[Any, dict[str, Any]] = {
    int: {"type": "integer"},
    float: {"type": "number"},
    bool: {"type": "boolean"},
    str: {"type": "string"},
    type(None): {"type": "null"},
    Any: {},
}


def json_schema(kind: Any) -> dict[str, Any]:
    """The schema of the JSON that :func:`tramontane.wire.read` takes for a type. Further fields are always allowed.

    Raises:
        TypeError: A type that requests have no use for.
    """
    if kind in _PLAIN:
        return dict(_PLAIN[kind])
    if attrs.has(kind):
        return _object(kind)
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin in (typing.Union, types.UnionType):
        return {"anyOf": [json_schema(one) for one in arguments]}
    if origin is typing.Literal:
        return {"enum": list(arguments)}
    if origin in (tuple, list):
        return {"type": "array", "items": json_schema(arguments[0])}
    if origin in (dict, Mapping):
        return {"type": "object", "additionalProperties": json_schema(arguments[1])}
    raise TypeError(f"no JSON Schema for {kind!r}")


def _object(cls: type) -> dict[str, Any]:
    fields = attrs.fields(attrs.resolve_types(cls))
    found: dict[str, Any] = {"type": "object", "properties": {f.name: json_schema(f.type) for f in fields}}
    required = [f.name for f in fields if f.default is attrs.NOTHING]
    return found | ({"required": required} if required else {})
