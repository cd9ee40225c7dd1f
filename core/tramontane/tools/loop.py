# SPDX-License-Identifier: Apache-2.0
"""The tool loop: let a model call Python functions and go on with their results until it answers.

It runs what the model asks for, so it is asked for by name: :func:`run_tools`. ``LLM.chat`` itself never runs anything.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, Protocol

from attrs import define, field

from tramontane.errors import RequestError
from tramontane.tools.calls import ToolCall
from tramontane.tools.tool import Tool, as_tool

if TYPE_CHECKING:
    from tramontane.api import LLM, Completion, CompletionDelta

_log = logging.getLogger(__name__)
LONGEST_RESULT = 200_000
"""Characters of a tool's result that the model gets to see."""

Approve = Callable[[ToolCall], bool]
"""Whether a call may be run."""


class ToolProvider(Protocol):
    """Brings tools, such as those of an MCP server."""

    def tools(self) -> Sequence[Tool]:
        """What it offers now."""

    def close(self) -> None:
        """Let go of what it holds."""


@define(eq=False)
class ToolRun:
    """A conversation in which tools are run. Iterate over it for the deltas of all rounds, then look at the fields."""

    llm: LLM
    messages: list[dict[str, Any]]
    """Grows by the model's calls, the results, and the last answer."""
    tools: Mapping[str, Tool]
    options: Mapping[str, Any]
    """Further arguments of ``LLM.chat``."""
    rounds: int
    """Most answers of the model."""
    approve: Approve | None = None
    completion: Completion | None = None
    """The last answer."""
    calls: list[tuple[ToolCall, str]] = field(factory=list)
    """What was called, with its results."""

    def __iter__(self) -> Iterator[CompletionDelta]:
        for turn in range(self.rounds):
            options = dict(self.options)
            if turn and options.get("tool_choice") not in (None, "auto", "none"):
                options["tool_choice"] = "auto"  # what was demanded has happened; demanded again it would never end
            with self.llm.chat(self.messages, tools=list(self.tools.values()), stream=True, **options) as stream:
                yield from stream
                self.completion = stream.completion()
            self.messages.append(as_message(self.completion))
            if not self.completion.tool_calls or turn + 1 == self.rounds:
                return
            self._run(self.completion.tool_calls)

    def finish(self) -> Completion:
        """Run to the end; the last answer. It has calls if the rounds were used up."""
        for _ in self:
            pass
        if self.completion is None:
            raise RequestError("run_tools needs at least one round")
        return self.completion

    def _run(self, calls: Sequence[ToolCall]) -> None:
        """Run the calls of one answer side by side, and add their results in the calls' order."""
        with ThreadPoolExecutor(min(8, len(calls)), thread_name_prefix="tramontane-tools") as pool:
            results = list(pool.map(lambda call: run_call(self.tools, call, self.approve), calls))
        for call, result in zip(calls, results, strict=True):
            self.calls.append((call, result))
            self.messages.append({"role": "tool", "tool_call_id": call.id, "name": call.name, "content": result})


def run_tools(
    llm: LLM,
    messages: Sequence[Mapping[str, Any]],
    tools: Sequence[Any],
    *,
    rounds: int = 8,
    approve: Approve | None = None,
    **options: Any,
) -> ToolRun:
    """Let a model answer a conversation with the help of tools that are run for it.

    >>> run = run_tools(llm, [{"role": "user", "content": "Weather in Rome?"}], [get_weather])
    >>> run.finish().text

    Args:
        llm: The model.
        messages: The conversation; it is copied.
        tools: Functions, or :class:`Tool` with a function.
        rounds: Most answers of the model; the calls of the last one are not run.
        approve: Is asked before each call, from several threads; what it refuses the model is told.
        options: Further arguments of :meth:`tramontane.LLM.chat`.

    Returns:
        A run: iterate over it for deltas, or :meth:`ToolRun.finish` it.

    Raises:
        RequestError: A tool cannot be run, or two have one name.
    """
    known: dict[str, Tool] = {}
    for tool in map(as_tool, tools):
        if tool.function is None:
            raise RequestError(
                f"tool {tool.name} has no function to run", hint="give a function, or Tool(function=...)"
            )
        if tool.name in known:
            raise RequestError(f"two tools are named {tool.name!r}")
        known[tool.name] = tool
    if rounds < 1:
        raise RequestError(f"rounds must be at least 1, got {rounds}")
    copied = [dict(message) for message in messages]
    return ToolRun(llm=llm, messages=copied, tools=known, options=options, rounds=rounds, approve=approve)


def run_call(tools: Mapping[str, Tool], call: ToolCall, approve: Approve | None = None) -> str:
    """Run one call; its result, or what went wrong, as text for the model. Never raises what a tool raises."""
    tool = tools.get(call.name)
    if tool is None or tool.function is None:
        return f"Error: there is no tool {call.name!r}. The tools are: {', '.join(tools) or 'none'}."
    try:
        arguments = json.loads(call.arguments)
    except (ValueError, RecursionError) as error:
        return f"Error: the arguments are not valid JSON: {error}"
    if not isinstance(arguments, dict):
        return "Error: the arguments must be a JSON object."
    if approve is not None and not approve(call):
        return "Error: the user did not allow this call."
    try:
        result = tool.function(**arguments)
    except Exception as error:  # a tool's failure is something the model can react to
        _log.info("tool %s failed", call.name, exc_info=True)
        return f"Error: {type(error).__name__}: {error}"[:LONGEST_RESULT]
    text = result if isinstance(result, str) else json.dumps(result, ensure_ascii=False, default=str)
    return text if len(text) <= LONGEST_RESULT else text[:LONGEST_RESULT] + "\n[cut off]"


def as_message(completion: Completion) -> dict[str, Any]:
    """A completion as a message of the conversation, in OpenAI's form."""
    message: dict[str, Any] = {"role": "assistant", "content": completion.text}
    if completion.reasoning is not None:
        message["reasoning_content"] = completion.reasoning
    if completion.tool_calls:
        message["tool_calls"] = [
            {"id": call.id, "type": "function", "function": {"name": call.name, "arguments": call.arguments}}
            for call in completion.tool_calls
        ]
    return message
