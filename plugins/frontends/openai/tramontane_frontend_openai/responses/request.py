# SPDX-License-Identifier: Apache-2.0
"""``POST /responses``: its fields, their translation for a chat, and the response that echoes them."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Mapping
from typing import Any, Literal

from attrs import frozen

from tramontane.requests import SamplingParams
from tramontane.wire import FieldError, SamplingFields, identifier
from tramontane_frontend_openai.thinking import thinking

MAX_METADATA = 16
MAX_TOP_LOGPROBS = 20
_LOGPROBS = "message.output_text.logprobs"
_ELSEWHERE = {
    "conversation": "conversations are not kept; continue with previous_response_id",
    "prompt": "prompts are not kept; send the prompt itself as input",
}


@frozen(kw_only=True)
class Format:
    """``text.format``."""

    type: Literal["text", "json_object", "json_schema"] = "text"
    name: str | None = None
    description: str | None = None
    schema: dict[str, Any] | bool | None = None
    strict: bool | None = None


@frozen(kw_only=True)
class Text:
    """``text``."""

    format: Format = Format()
    verbosity: Literal["low", "medium", "high"] | None = None


@frozen(kw_only=True)
class Reasoning:
    """``reasoning``."""

    effort: str | None = None
    summary: Literal["concise", "detailed", "auto"] | None = None


@frozen(kw_only=True)
class ResponsesRequest(SamplingFields):
    """What a client may ask for."""

    model: str = "default"
    input: str | tuple[dict[str, Any], ...] | None = None
    instructions: str | None = None
    previous_response_id: str | None = None
    include: tuple[str, ...] | None = None
    tools: tuple[dict[str, Any], ...] | None = None
    tool_choice: str | dict[str, Any] | None = None
    parallel_tool_calls: bool | None = None
    max_tool_calls: int | None = None
    metadata: dict[str, str] | None = None
    text: Text | None = None
    reasoning: Reasoning | None = None
    max_output_tokens: int | None = None
    top_logprobs: int | None = None
    truncation: Literal["auto", "disabled"] | None = None
    stop: str | tuple[str, ...] | None = None
    store: bool | None = None
    stream: bool | None = None
    background: bool | None = None
    service_tier: str | None = None
    safety_identifier: str | None = None
    prompt_cache_key: str | None = None
    user: str | None = None
    conversation: Any = None
    prompt: Any = None
    enable_thinking: bool | None = None
    chat_template_kwargs: dict[str, Any] | None = None

    def check(self) -> None:
        """Refuse what no answer could honour.

        Raises:
            FieldError: Names the field.
        """
        for name, reason in _ELSEWHERE.items():
            if getattr(self, name) is not None:
                raise FieldError(reason, param=name)
        for name in ("user", "safety_identifier", "prompt_cache_key"):
            if getattr(self, name):
                identifier(getattr(self, name), name)
        if self.input is None and self.previous_response_id is None:
            raise FieldError("input is missing", param="input")
        if self.background and self.store is False:
            raise FieldError("a response in the background must be stored", param="store")
        if self.metadata and len(self.metadata) > MAX_METADATA:
            raise FieldError(f"metadata may have {MAX_METADATA} keys", param="metadata")
        if self.top_logprobs is not None and not 0 <= self.top_logprobs <= MAX_TOP_LOGPROBS:
            raise FieldError(f"top_logprobs must be from 0 to {MAX_TOP_LOGPROBS}", param="top_logprobs")
        if self.max_output_tokens is not None and self.max_output_tokens < 1:
            raise FieldError("max_output_tokens must be above 0", param="max_output_tokens")
        for place, tool in enumerate(self.tools or ()):
            if tool.get("type") != "function" or not isinstance(tool.get("name"), str):
                raise FieldError("the server calls no tools itself; give functions", param=f"tools[{place}].type")

    @property
    def wants_logprobs(self) -> bool:
        """Whether the answer's texts come with log-probabilities."""
        return _LOGPROBS in (self.include or ()) or bool(self.top_logprobs)

    def sampling(self, defaults: Callable[..., SamplingParams]) -> SamplingParams:
        """Parameters with the model's defaults filled in by ``defaults(**given)``."""
        given = self.parameters() | {"max_tokens": self.max_output_tokens}
        if self.stop is not None:
            given["stop"] = self.stop
        if self.wants_logprobs:
            given["logprobs"] = self.top_logprobs or 0
        return self.made(defaults, given, max_tokens="max_output_tokens", logprobs="top_logprobs")

    def call(self) -> dict[str, Any]:
        """What the chat is given beside the messages."""
        effort = self.reasoning.effort if self.reasoning is not None else None
        found: dict[str, Any] = {
            "tools": [_chat_tool(tool) for tool in self.tools or ()] or None,
            "tool_choice": _chat_choice(self.tool_choice),
            "response_format": None if self.text is None else _chat_format(self.text.format),
            "template_kwargs": self.chat_template_kwargs or None,
            "parallel_tool_calls": self.parallel_tool_calls is not False,
            **thinking(effort, self.enable_thinking),
        }
        return {name: value for name, value in found.items() if value is not None}

    def resource(self, model: str, params: SamplingParams) -> dict[str, Any]:
        """A response that has not begun."""
        chosen = self.text or Text()
        reasoning = self.reasoning or Reasoning()
        return {
            "id": f"resp_{uuid.uuid4().hex}", "object": "response", "created_at": int(time.time()),
            "completed_at": None, "status": "queued", "error": None, "incomplete_details": None, "model": model,
            "instructions": self.instructions, "previous_response_id": self.previous_response_id, "output": [],
            "tools": [_echoed_tool(tool) for tool in self.tools or ()], "tool_choice": self.tool_choice or "auto",
            "parallel_tool_calls": self.parallel_tool_calls is not False, "max_tool_calls": self.max_tool_calls,
            "text": {"format": _echoed_format(chosen.format), "verbosity": chosen.verbosity},
            "reasoning": {"effort": reasoning.effort, "summary": reasoning.summary},
            "temperature": params.temperature, "top_p": params.top_p, "presence_penalty": params.presence_penalty,
            "frequency_penalty": params.frequency_penalty, "top_logprobs": self.top_logprobs or 0,
            "max_output_tokens": self.max_output_tokens, "truncation": self.truncation or "disabled",
            "store": self.store is not False, "background": bool(self.background), "service_tier": "default",
            "metadata": self.metadata or {}, "safety_identifier": self.safety_identifier,
            "prompt_cache_key": self.prompt_cache_key, "user": self.user, "usage": None,
        }  # fmt: skip


_FUNCTION = ("name", "description", "parameters", "strict")


def _chat_tool(tool: Mapping[str, Any]) -> dict[str, Any]:
    return {"type": "function", "function": {name: tool[name] for name in _FUNCTION if tool.get(name) is not None}}


def _echoed_tool(tool: Mapping[str, Any]) -> dict[str, Any]:
    return {"type": "function"} | {name: tool.get(name) for name in _FUNCTION}


def _chat_choice(choice: str | Mapping[str, Any] | None) -> Any:
    """The choice of tools as chat completions spell it."""
    if choice is None or isinstance(choice, str):
        return choice
    if choice.get("type") == "allowed_tools":
        named = [_named(tool, "tool_choice.tools") for tool in choice.get("tools") or ()]
        return {"type": "allowed_tools", "allowed_tools": {"mode": choice.get("mode", "auto"), "tools": named}}
    return _named(choice, "tool_choice")


def _named(choice: Any, param: str) -> dict[str, Any]:
    name = choice.get("name") if isinstance(choice, Mapping) and choice.get("type") == "function" else None
    if not isinstance(name, str):
        raise FieldError(f"{param} must name a function", param=param)
    return {"type": "function", "function": {"name": name}}


def _chat_format(asked: Format) -> dict[str, Any] | None:
    if asked.type != "json_schema":
        return {"type": asked.type}
    if asked.schema is None:
        raise FieldError("a format of type json_schema needs a schema", param="text.format.schema")
    given = {"name": asked.name, "schema": asked.schema, "strict": asked.strict}
    return {"type": "json_schema", "json_schema": {name: value for name, value in given.items() if value is not None}}


def _echoed_format(asked: Format) -> dict[str, Any]:
    if asked.type != "json_schema":
        return {"type": asked.type}
    return {
        "type": asked.type, "name": asked.name or "answer", "description": asked.description, "schema": asked.schema,
        "strict": bool(asked.strict),
    }  # fmt: skip
