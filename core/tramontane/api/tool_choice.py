# SPDX-License-Identifier: Apache-2.0
"""Which of the offered tools a model may or must call, from the forms in which OpenAI's API says it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from attrs import frozen

from tramontane.errors import RequestError

_MODES = ("auto", "none", "required")


@frozen
class ToolChoice:
    """A checked choice."""

    mode: str = "auto"
    """``auto``: the model decides; ``required``: it must call; ``none``: it cannot."""
    allowed: tuple[str, ...] = ()
    """Names of the tools that may be called; all of the offered ones, or some."""
    narrowed: bool = False
    """Whether these are fewer than are offered."""

    @classmethod
    def of(cls, choice: str | Mapping[str, Any] | None, names: Sequence[str]) -> ToolChoice:
        """Read a choice.

        Args:
            choice: ``None``, ``"auto"``, ``"none"``, ``"required"``; ``{"type": "function", "function": {"name"}}`` or
                ``{"type": "function", "name"}`` for one tool; ``{"type": "allowed_tools", "allowed_tools": {"mode",
                "tools"}}``, the inner object also flat.
            names: The tools on offer.

        Raises:
            RequestError: It has another form, names a tool that is not on offer, or requires a call where none can be
                made.
        """
        found = cls._read("auto" if choice is None else choice, tuple(names))
        if found.mode == "required" and not found.allowed:
            raise RequestError("tool_choice requires a call, but no tools are offered", hint="give tools")
        return found

    @classmethod
    def _read(cls, choice: str | Mapping[str, Any], names: tuple[str, ...]) -> ToolChoice:
        if isinstance(choice, str):
            if choice not in _MODES:
                raise RequestError(f"tool_choice must be one of {', '.join(_MODES)} or an object, got {choice[:100]!r}")
            return cls(choice, () if choice == "none" else names)
        kind = choice.get("type") if isinstance(choice, Mapping) else None
        if kind == "function":
            return cls("required", (_known(_name(choice), names),), narrowed=len(names) > 1)
        if kind == "allowed_tools":
            inner = choice.get("allowed_tools", choice)
            mode = inner.get("mode", "auto") if isinstance(inner, Mapping) else None
            listed = inner.get("tools") if isinstance(inner, Mapping) else None
            if mode in ("auto", "required") and isinstance(listed, Sequence) and not isinstance(listed, str) and listed:
                allowed = tuple(dict.fromkeys(_known(_name(item), names) for item in listed))
                return cls(mode, allowed, narrowed=len(allowed) < len(names))
            raise RequestError('allowed_tools must have a mode ("auto" or "required") and a list of tools')
        raise RequestError(
            'tool_choice must be "auto", "none", "required", or an object of type "function" or "allowed_tools"'
        )


def _name(item: Any) -> str:
    """The name in ``{"type": "function", "function": {"name": ...}}`` or ``{"type": "function", "name": ...}``."""
    inner = item.get("function", item) if isinstance(item, Mapping) else None
    name = inner.get("name") if isinstance(inner, Mapping) else None
    if not isinstance(name, str):
        raise RequestError("tool_choice must name a function")
    return name


def _known(name: str, names: Sequence[str]) -> str:
    if name not in names:
        offered = ", ".join(names[:20]) or "none"
        raise RequestError(f"tool_choice names {name[:100]!r}, which is not among the tools ({offered})")
    return name
