# SPDX-License-Identifier: Apache-2.0
"""What clients may send to ``/v1/messages``, and its translation for a chat."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Literal

from attrs import frozen

from tramontane.requests import SamplingParams
from tramontane.wire import FieldError, SamplingFields, identifier

EFFORTS = ("low", "medium", "high", "xhigh", "max")
_ELSEWHERE = {
    "mcp_servers": "the server calls no tools itself; connect to MCP servers in the client",
    "container": "the server runs no containers",
}


@frozen(kw_only=True)
class Thinking:
    """``thinking``."""

    type: Literal["enabled", "adaptive", "disabled"]
    budget_tokens: int | None = None
    """Most tokens of thought. Clients send it to every model; where the end of a thought cannot be forced, only
    ``max_tokens`` bounds it."""


@frozen(kw_only=True)
class ToolChoice:
    """``tool_choice``."""

    type: Literal["auto", "any", "tool", "none"]
    name: str | None = None
    disable_parallel_tool_use: bool | None = None


@frozen(kw_only=True)
class OutputFormat:
    """``output_config.format``."""

    type: Literal["json_schema"]
    schema: dict[str, Any]


@frozen(kw_only=True)
class OutputConfig:
    """``output_config``."""

    effort: str | None = None
    format: OutputFormat | None = None


@frozen(kw_only=True)
class Metadata:
    """``metadata``."""

    user_id: str | None = None


@frozen(kw_only=True)
class Prompt(SamplingFields):
    """What both routes take. To count tokens, sampling fields change nothing."""

    messages: tuple[dict[str, Any], ...]
    model: str = "default"
    system: str | tuple[dict[str, Any], ...] | None = None
    tools: tuple[dict[str, Any], ...] | None = None
    tool_choice: ToolChoice | None = None
    thinking: Thinking | None = None
    output_config: OutputConfig | None = None
    output_format: OutputFormat | None = None
    enable_thinking: bool | None = None
    chat_template_kwargs: dict[str, Any] | None = None
    container: Any = None
    mcp_servers: tuple[Any, ...] | None = None

    def template(self) -> dict[str, Any]:
        """What the chat template is given beside the messages."""
        for name, reason in _ELSEWHERE.items():
            if getattr(self, name):
                raise FieldError(reason, param=name)
        found = {
            "tools": [_tool(tool, f"tools[{place}]") for place, tool in enumerate(self.tools or ())] or None,
            "template_kwargs": self.chat_template_kwargs or None,
            "enable_thinking": self._thinks(),
            "reasoning_effort": self._effort(),
        }
        return {name: value for name, value in found.items() if value is not None}

    def _thinks(self) -> bool:
        """Whoever does not ask for thoughts gets none, where the model's template has a way to say so."""
        if self.enable_thinking is not None:
            return self.enable_thinking
        return self.thinking is not None and self.thinking.type != "disabled"

    def _effort(self) -> str | None:
        effort = self.output_config.effort if self.output_config is not None else None
        if effort is not None and effort not in EFFORTS:
            raise FieldError(f"effort must be one of {', '.join(EFFORTS)}", param="output_config.effort")
        return effort if self._thinks() else None


@frozen(kw_only=True)
class MessagesRequest(Prompt):
    """``POST /v1/messages``."""

    max_tokens: int
    stop_sequences: tuple[str, ...] | None = None
    stream: bool | None = None
    metadata: Metadata | None = None

    def sampling(self, defaults: Callable[..., SamplingParams]) -> SamplingParams:
        """Parameters with the model's defaults filled in by ``defaults(**given)``."""
        if self.metadata is not None and self.metadata.user_id:
            identifier(self.metadata.user_id, "metadata.user_id")
        given = self.parameters() | {"max_tokens": self.max_tokens}
        if self.stop_sequences:
            given["stop"] = self.stop_sequences
        return self.made(defaults, given, stop="stop_sequences")

    def call(self, *, bounded: bool) -> dict[str, Any]:
        """What the chat is given beside messages and parameters.

        Args:
            bounded: Whether the model's thoughts can be ended after some tokens.
        """
        choice = self.tool_choice
        options: dict[str, Any] = {
            "parallel_tool_calls": choice is None or not choice.disable_parallel_tool_use,
            **self.template(),
        }
        if choice is not None:
            options["tool_choice"] = _choice(choice)
        budget = self._budget()
        if bounded and budget is not None and budget < self.max_tokens:
            options["thinking_budget"] = budget
        asked = self.output_config.format if self.output_config is not None else None
        asked = asked or self.output_format
        if asked is not None:
            if self.grammar is not None:
                raise FieldError("give either grammar or output_config.format", param="grammar")
            schema = {"name": "answer", "schema": asked.schema}
            options["response_format"] = {"type": "json_schema", "json_schema": schema}
        return options

    def _budget(self) -> int | None:
        """Most tokens of thought; ``None`` for no bound of their own."""
        if self.thinking is None or self.thinking.type == "disabled":
            return None
        if self.thinking.budget_tokens is not None and self.thinking.budget_tokens < 0:
            raise FieldError("budget_tokens must not be below 0", param="thinking.budget_tokens")
        return self.thinking.budget_tokens


def _tool(tool: Mapping[str, Any], where: str) -> dict[str, Any]:
    """A tool as chat templates take it."""
    if tool.get("type") not in (None, "custom"):
        raise FieldError("the server calls no tools itself; give custom ones", param=f"{where}.type")
    if not isinstance(tool.get("name"), str) or not tool["name"]:
        raise FieldError("a tool needs a name", param=f"{where}.name")
    if not isinstance(tool.get("input_schema"), Mapping):
        raise FieldError("a tool needs the schema of its input", param=f"{where}.input_schema")
    found = {"name": tool["name"], "description": tool.get("description"), "parameters": tool["input_schema"]}
    if tool.get("strict") is not None:
        found["strict"] = tool["strict"]
    return {"type": "function", "function": {name: value for name, value in found.items() if value is not None}}


def _choice(choice: ToolChoice) -> Any:
    if choice.type != "tool":
        return "required" if choice.type == "any" else choice.type
    if not choice.name:
        raise FieldError("tool_choice must name the tool", param="tool_choice.name")
    return {"type": "function", "function": {"name": choice.name}}
