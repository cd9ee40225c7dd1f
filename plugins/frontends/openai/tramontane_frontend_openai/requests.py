# SPDX-License-Identifier: Apache-2.0
"""What clients may send to complete text, chat and embed: attrs classes read from JSON, and their translation.

Unknown fields are tolerated, as OpenAI's clients add new ones; wrong values are refused with the field's name. A field
that asks for something the server cannot do is refused as well: an answer that ignores it would be a wrong one.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from attrs import frozen

from tramontane.requests import SamplingParams
from tramontane.wire import FieldError, SamplingFields, identifier
from tramontane_frontend_openai.thinking import thinking

DEFAULT_COMPLETION_TOKENS = 16
"""What OpenAI's legacy endpoint gives without ``max_tokens``."""


@frozen(kw_only=True)
class StreamOptions:
    """``stream_options``."""

    include_usage: bool | None = None
    continuous_usage_stats: bool | None = None
    """Every chunk tells the usage so far."""


@frozen(kw_only=True)
class Sampling(SamplingFields):
    """Fields of every request that samples."""

    model: str = "default"
    max_tokens: int | None = None
    n: int | None = None
    stop: str | tuple[str, ...] | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    user: str | None = None

    def parameters(self) -> dict[str, Any]:
        """The given ones, named as :class:`~tramontane.requests.SamplingParams` has them."""
        if self.user:
            identifier(self.user, "user")
        given = {name: getattr(self, name) for name in ("n", "stop") if getattr(self, name) is not None}
        return super().parameters() | given

    @property
    def wants_usage(self) -> bool:
        """Whether a stream ends with a chunk of usage."""
        return self.stream_options is not None and bool(self.stream_options.include_usage)

    @property
    def wants_usage_meanwhile(self) -> bool:
        """Whether every chunk tells it."""
        return self.stream_options is not None and bool(self.stream_options.continuous_usage_stats)


@frozen(kw_only=True)
class CompletionRequest(Sampling):
    """``POST /v1/completions``."""

    prompt: str | tuple[int, ...] | tuple[str, ...] | tuple[tuple[int, ...], ...]
    echo: bool | None = None
    logprobs: int | None = None
    best_of: int | None = None
    suffix: str | None = None

    def sampling(self, defaults: Callable[..., SamplingParams]) -> SamplingParams:
        """Parameters with the model's defaults filled in by ``defaults(**given)``."""
        if self.suffix:
            raise FieldError("suffix is not supported: the model completes to the right only", param="suffix")
        given = self.parameters()
        wanted = given.get("n", 1)
        if wanted < 1:
            raise FieldError("n must be above 0", param="n")
        if self.best_of is not None and self.best_of < wanted:
            raise FieldError(f"best_of ({self.best_of}) must not be below n ({wanted})", param="best_of")
        if self.best_of is not None and self.best_of > wanted and self.stream:
            raise FieldError("best_of cannot be streamed", param="best_of")
        if self.scores_only and self.stream:
            raise FieldError("max_tokens of 0 leaves nothing to stream", param="max_tokens")
        given["n"] = max(wanted, self.best_of or 1)
        asked = DEFAULT_COMPLETION_TOKENS if self.max_tokens is None else self.max_tokens
        given["max_tokens"] = 1 if self.scores_only else asked
        if self.logprobs is not None or given["n"] > wanted:
            given["logprobs"] = self.logprobs or 0
        if self.echo and self.logprobs is not None:
            given["prompt_logprobs"] = self.logprobs
        return self.made(defaults, given, prompt_logprobs="logprobs", n="best_of" if self.best_of else "n")

    @property
    def scores_only(self) -> bool:
        """``max_tokens`` of 0: evaluations ask for the prompt's log-probabilities and for nothing new."""
        return self.max_tokens == 0


@frozen(kw_only=True)
class ChatRequest(Sampling):
    """``POST /v1/chat/completions``."""

    messages: tuple[dict[str, Any], ...]
    max_completion_tokens: int | None = None
    logprobs: bool | None = None
    top_logprobs: int | None = None
    tools: tuple[dict[str, Any], ...] | None = None
    tool_choice: str | dict[str, Any] | None = None
    parallel_tool_calls: bool | None = None
    response_format: dict[str, Any] | None = None
    functions: tuple[dict[str, Any], ...] | None = None
    function_call: str | dict[str, Any] | None = None
    modalities: tuple[str, ...] | None = None
    web_search_options: dict[str, Any] | None = None
    enable_thinking: bool | None = None
    reasoning_effort: str | None = None
    thinking_budget: int | None = None
    """Most tokens of reasoning; then its end is forced."""
    chat_template_kwargs: dict[str, Any] | None = None
    continue_final_message: bool | None = None
    add_generation_prompt: bool | None = None

    def sampling(self, defaults: Callable[..., SamplingParams]) -> SamplingParams:
        """Parameters with the model's defaults filled in by ``defaults(**given)``."""
        self._refuse_unsupported()
        given = self.parameters()
        limit = self.max_completion_tokens if self.max_completion_tokens is not None else self.max_tokens
        given["max_tokens"] = limit
        if self.top_logprobs and not self.logprobs:
            raise FieldError("top_logprobs needs logprobs: true", param="top_logprobs")
        if self.logprobs:
            given["logprobs"] = self.top_logprobs or 0
        if self.grammar is not None and self.response_format is not None:
            raise FieldError("give either grammar or response_format", param="grammar")
        asked = "max_tokens" if self.max_completion_tokens is None else "max_completion_tokens"
        return self.made(defaults, given, max_tokens=asked, logprobs="top_logprobs")

    def call(self) -> dict[str, Any]:
        """What the chat is given beside the messages: tools, the answer's form, and options of the template."""
        continues = bool(self.continue_final_message)
        options: dict[str, Any] = {
            "continue_final_message": continues,
            "add_generation_prompt": not continues
            if self.add_generation_prompt is None
            else self.add_generation_prompt,
            "parallel_tool_calls": self.parallel_tool_calls is not False,
        }
        given = {
            "tools": list(self.tools or ()) or None,
            "tool_choice": self.tool_choice,
            "response_format": self.response_format,
            "thinking_budget": self.thinking_budget,
            "template_kwargs": self.chat_template_kwargs or None,
        }
        options |= {name: value for name, value in given.items() if value is not None}
        return options | thinking(self.reasoning_effort, self.enable_thinking)

    def _refuse_unsupported(self) -> None:
        if self.functions and self.function_call != "none":
            raise FieldError("functions are not supported; tools are their successor", param="functions")
        if self.modalities is not None and tuple(self.modalities) != ("text",):
            raise FieldError("the only modality of answers is text", param="modalities")
        if self.web_search_options is not None:
            raise FieldError("the server does not search the web", param="web_search_options")


@frozen(kw_only=True)
class EmbeddingRequest:
    """``POST /v1/embeddings``."""

    input: str | tuple[int, ...] | tuple[str, ...] | tuple[tuple[int, ...], ...]
    model: str = "default"
    encoding_format: str | None = None
    dimensions: int | None = None
    user: str | None = None


@frozen(kw_only=True)
class TokenizeRequest:
    """``POST /v1/tokenize``: a text, or a conversation through the model's template."""

    prompt: str | None = None
    messages: tuple[dict[str, Any], ...] | None = None
    tools: tuple[dict[str, Any], ...] | None = None
    model: str = "default"
    add_special_tokens: bool = True


@frozen(kw_only=True)
class DetokenizeRequest:
    """``POST /v1/detokenize``."""

    tokens: tuple[int, ...]
    model: str = "default"
