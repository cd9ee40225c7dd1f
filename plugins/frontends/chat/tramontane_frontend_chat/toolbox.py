# SPDX-License-Identifier: Apache-2.0
"""Tools in the terminal: Python functions that run if the person allows it, and functions whose part the person plays.

What a call does and what a failing one says to the model is core's (:func:`tramontane.tools.run_call`); here is where
tools come from, and the question before each call.
"""

from __future__ import annotations

import importlib.util
import inspect
import json
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from attrs import define, evolve, field

from tramontane.errors import RequestError, TramontaneError
from tramontane.tools import Tool, as_tool, run_call
from tramontane_frontend_chat.markdown import printable

if TYPE_CHECKING:
    from tramontane.tools import ToolCall, ToolProvider

Providers = Mapping[str, Callable[[], "ToolProvider"]]
"""How the installed plugins' tools are had, by the plugins' names."""
_SHOWN = 400
"""Characters of a call's arguments in a question."""


def _nobody(question: str) -> str:
    raise EOFError


@define(eq=False)
class Toolbox:
    """What the model may call."""

    providers: Providers = field(factory=dict)
    ask: Callable[[str], str] = _nobody
    """Asks the person and gives the answer; raises ``EOFError`` where nobody can be asked."""
    tools: dict[str, Tool] = field(factory=dict)
    _played: set[str] = field(factory=set)
    """Names of functions that nobody has written: the person says what they return."""
    _allowed: set[str] = field(factory=set)
    """Names of those that need not be asked about any more."""
    _open: list[ToolProvider] = field(factory=list)

    def add(self, source: str) -> list[str]:
        """Take tools from a Python file (its public functions), a JSON file (OpenAI's descriptions), or a plugin.

        Returns:
            Their names.

        Raises:
            RequestError: There are none, or one has the name of another.
        """
        found, played = self._read(source)
        names = [tool.name for tool in found]
        taken = next((name for name in names if name in self.tools or names.count(name) > 1), None)
        if taken is not None:
            raise RequestError(f"there is a tool {taken!r} already", hint="/tools none forgets all")
        if not found:
            raise RequestError(f"{source} holds no tools")
        for tool in found:
            self.tools[tool.name] = evolve(tool, function=partial(self._play, tool.name)) if played else tool
        self._played.update(names if played else ())
        return names

    def clear(self) -> None:
        """Forget all tools."""
        for provider in self._open:
            provider.close()
        for held in (self.tools, self._played, self._allowed, self._open):
            held.clear()

    def run(self, call: ToolCall) -> str:
        """What a call comes to, as the model is told: its result, or why there is none."""
        return run_call(self.tools, call, self._approve)

    # --- where tools come from ----------------------------------------------------------------------------------------

    def _read(self, source: str) -> tuple[list[Tool], bool]:
        """Tools, and whether the person plays their part."""
        path = Path(source).expanduser()
        if path.suffix == ".py":
            return _functions(path), False
        if path.suffix == ".json":
            return _described(path), True
        make = self.providers.get(source)
        if make is None:
            known = ", ".join(self.providers) or "none"
            raise RequestError(
                f"{source!r} is no source of tools",
                hint=f"give a .py or .json file, or an installed provider ({known})",
            )
        self._open.append(make())
        return [as_tool(tool) for tool in self._open[-1].tools()], False

    # --- the person ---------------------------------------------------------------------------------------------------

    def _approve(self, call: ToolCall) -> bool:
        if call.name in self._played or call.name in self._allowed:
            return True
        shown = printable(call.arguments[:_SHOWN]) + ("..." if len(call.arguments) > _SHOWN else "")
        try:
            answer = self.ask(f"Run {call.name}({shown})? [y]es, [n]o, [a]lways: ").strip().lower()
        except (EOFError, KeyboardInterrupt):
            return False
        if answer in ("a", "always"):
            self._allowed.add(call.name)
        return answer in ("y", "yes", "a", "always")

    def _play(self, name: str, **arguments: Any) -> str:
        try:
            return self.ask(f"What does {name} return? ")
        except (EOFError, KeyboardInterrupt):
            raise RuntimeError("nobody was there to answer") from None


def _functions(path: Path) -> list[Tool]:
    """The public functions that a Python file defines. The file is run: it is the person's own."""
    module = _run(path)
    own = [one for name, one in vars(module).items() if inspect.isfunction(one) and not name.startswith("_")]
    return [Tool.of(function) for function in own if function.__module__ == module.__name__]


def _run(path: Path) -> ModuleType:
    if not path.is_file():
        raise RequestError(f"there is no file {path}")
    spec = importlib.util.spec_from_file_location(f"tramontane_chat_tools_{path.stem}", path)
    if spec is None or spec.loader is None:
        raise RequestError(f"{path} cannot be run as Python")
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except Exception as error:  # whatever a stranger's file raises
        raise RequestError(f"{path} failed: {type(error).__name__}: {error}") from error
    return module


def _described(path: Path) -> list[Tool]:
    """Functions from their JSON: OpenAI's list, or bare functions, as the chat page takes them too."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise RequestError(f"{path} cannot be read: {getattr(error, 'strerror', None) or error}") from None
    listed: Iterable[Any] = found if isinstance(found, list) else [found]
    try:
        return [as_tool(one) for one in listed]
    except TramontaneError as error:
        raise RequestError(f"{path}: {error.message}", hint=error.hint) from None
