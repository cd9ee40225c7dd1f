# SPDX-License-Identifier: Apache-2.0
"""A tool: a Python function, and the JSON schema by which a model knows it."""

from __future__ import annotations

import inspect
import json
import re
import types
import typing
from collections.abc import Callable, Mapping, Sequence
from enum import Enum
from typing import Any, Literal, Union, get_args, get_origin

from attrs import Attribute, field, frozen

from tramontane.errors import RequestError

_NAME = re.compile(r"[A-Za-z0-9_.-]{1,64}")
_PLAIN = {str: "string", int: "integer", float: "number", bool: "boolean", type(None): "null"}
_ARGUMENT_LINE = re.compile(r"\s*(\w+)\s*(?:\([^)]*\))?\s*:\s*(.+)")


def _check_name(tool: Tool, attribute: Attribute[str], value: Any) -> None:
    if not isinstance(value, str) or not _NAME.fullmatch(value):
        raise RequestError(f"a tool's name must be 1 to 64 letters, digits, '_', '.' and '-', got {value!r}")


@frozen(kw_only=True)
class Tool:
    """A function that a model may call."""

    name: str = field(validator=_check_name)
    """1 to 64 letters, digits, ``_``, ``.`` and ``-``."""
    description: str = ""
    parameters: Mapping[str, Any] = field(factory=lambda: {"type": "object", "properties": {}})
    """JSON schema of the arguments: an object."""
    function: Callable[..., Any] | None = None
    """What runs when the model calls; ``None`` leaves that to the caller."""
    strict: bool = False
    """Keep the model to the schema by a grammar while it writes the arguments."""

    @classmethod
    def of(cls, function: Callable[..., Any], *, name: str | None = None, strict: bool = False) -> Tool:
        """A Python function as a tool: its name, its docstring's first paragraph, and its annotations as a schema.

        Lines such as ``city: where to look`` under ``Args:`` describe parameters. A parameter without a default is
        required. ``str int float bool None``, lists, dictionaries, unions, ``Literal`` and enumerations are understood.

        Raises:
            RequestError: The function has parameters that cannot be named, or an annotation no JSON schema can express.
        """
        title = name if name is not None else str(getattr(function, "__name__", ""))
        try:
            signature, hints = inspect.signature(function), typing.get_type_hints(function)
        except (TypeError, ValueError, NameError) as error:
            raise RequestError(f"{title or function!r} cannot be a tool: {error}") from error
        about, described = _documented(function)
        properties: dict[str, Any] = {}
        required = []
        for key, parameter in signature.parameters.items():
            if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD, parameter.POSITIONAL_ONLY):
                raise RequestError(f"tool {title}: parameter {key} cannot be given by name")
            schema = _schema(hints.get(key, Any), f"tool {title}: parameter {key}")
            if key in described:
                schema = {**schema, "description": described[key]}
            if parameter.default is parameter.empty:
                required.append(key)
            elif _is_json(parameter.default):
                schema = {**schema, "default": parameter.default}
            properties[key] = schema
        parameters = {"type": "object", "properties": properties, "required": required, "additionalProperties": False}
        return cls(name=title, description=about, parameters=parameters, function=function, strict=strict)

    @property
    def schema(self) -> dict[str, Any]:
        """In OpenAI's form, as templates and servers take it."""
        function = {"name": self.name, "description": self.description, "parameters": dict(self.parameters)}
        return {"type": "function", "function": function | ({"strict": True} if self.strict else {})}


def as_tool(tool: Any) -> Tool:
    """A tool from a :class:`Tool`, a Python function, or a description in OpenAI's form.

    Raises:
        RequestError: It is none of these.
    """
    if isinstance(tool, Tool):
        return tool
    if isinstance(tool, Mapping):
        function: Any = tool.get("function", tool)
        if tool.get("type", "function") != "function" or not isinstance(function, Mapping):
            raise RequestError('a tool must be {"type": "function", "function": {"name": ..., "parameters": ...}}')
        parameters = function.get("parameters")
        if not isinstance(parameters, Mapping | None):
            raise RequestError("a tool's parameters must be a JSON schema object")
        name: Any = function.get("name")
        return Tool(
            name=name,
            description=function.get("description") or "",
            parameters=parameters or {"type": "object", "properties": {}},
            strict=bool(function.get("strict")),
        )
    if callable(tool):
        return Tool.of(tool)
    raise RequestError(f"a tool is a function, a Tool or a description of one, got {type(tool).__name__}")


def schemas(tools: Sequence[Any] | None) -> list[dict[str, Any]]:
    """Tools as templates take them; descriptions that are given as such stay as they are.

    Raises:
        RequestError: Something is no tool, or two have one name.
    """
    if isinstance(tools, str | bytes | Mapping) or not isinstance(tools, Sequence | None):
        raise RequestError("tools must be a list")
    found: dict[str, dict[str, Any]] = {}
    for tool in tools or ():
        known = as_tool(tool)
        if known.name in found:
            raise RequestError(f"two tools are named {known.name!r}")
        found[known.name] = dict(tool) if isinstance(tool, Mapping) else known.schema
    return list(found.values())


def _documented(function: Callable[..., Any]) -> tuple[str, dict[str, str]]:
    """A docstring's first paragraph, and what it says of the parameters."""
    text = inspect.getdoc(function) or ""
    about = " ".join(text.split("\n\n", 1)[0].split())
    _, found, rest = text.partition("Args:\n")
    described = {}
    for line in rest.splitlines() if found else ():
        if line and not line[0].isspace():
            break
        match = _ARGUMENT_LINE.fullmatch(line)
        if match is not None:
            described[match[1]] = match[2].strip()
    return about, described


def _schema(hint: Any, where: str) -> dict[str, Any]:
    """The JSON schema of an annotation."""
    origin, inner = get_origin(hint), get_args(hint)
    if hint in _PLAIN:
        return {"type": _PLAIN[hint]}
    if hint is Any:
        return {}
    if origin is typing.Annotated:
        note = next((item for item in inner[1:] if isinstance(item, str)), None)
        return {**_schema(inner[0], where), **({"description": note} if note else {})}
    if origin is Literal or (isinstance(hint, type) and issubclass(hint, Enum)):
        return {"enum": list(inner) if origin is Literal else [item.value for item in hint]}
    if origin in (Union, types.UnionType):
        return {"anyOf": [_schema(item, where) for item in inner]}
    if hint in (list, tuple, set) or origin in (list, tuple, set, Sequence):
        element = [item for item in inner if item is not Ellipsis][:1]
        return {"type": "array", **({"items": _schema(element[0], where)} if element else {})}
    if hint in (dict, Mapping) or origin in (dict, Mapping):
        return {"type": "object", **({"additionalProperties": _schema(inner[1], where)} if len(inner) == 2 else {})}
    raise RequestError(f"{where}: {hint!r} has no JSON schema", hint="give a Tool with the schema you mean")


def _is_json(value: Any) -> bool:
    try:
        json.dumps(value)
    except (TypeError, ValueError):
        return False
    return True
