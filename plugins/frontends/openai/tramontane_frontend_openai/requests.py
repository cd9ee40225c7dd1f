# SPDX-License-Identifier: Apache-2.0
"""What clients may send: attrs classes read from JSON, and their translation into sampling parameters.

Unknown fields are tolerated, as OpenAI's clients add new ones; wrong values are refused with the field's name. A field
that asks for something the server cannot do is refused as well: an answer that ignores it would be a wrong one.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar

from attrs import frozen

from tramontane.config import read_config
from tramontane.errors import ConfigError
from tramontane.requests import SamplingParams
from tramontane_frontend_openai.errors import ApiError

T = TypeVar("T")

DEFAULT_COMPLETION_TOKENS = 16
"""What OpenAI's legacy endpoint gives without ``max_tokens``."""


@frozen(kw_only=True)
class StreamOptions:
    """``stream_options``."""

    include_usage: bool = False


@frozen(kw_only=True)
class Sampling:
    """Fields of every request that samples; ``None`` is the model's default."""

    model: str = "default"
    max_tokens: int | None = None
    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    min_p: float | None = None
    frequency_penalty: float | None = None
    presence_penalty: float | None = None
    repetition_penalty: float | None = None
    dry_multiplier: float | None = None
    dry_base: float | None = None
    dry_allowed_length: int | None = None
    dry_sequence_breakers: tuple[str, ...] | None = None
    logit_bias: dict[str, float] | None = None
    seed: int | None = None
    n: int | None = None
    stop: str | tuple[str, ...] | None = None
    stop_token_ids: tuple[int, ...] | None = None
    ignore_eos: bool | None = None
    min_tokens: int | None = None
    stream: bool = False
    stream_options: StreamOptions | None = None
    user: str | None = None

    def parameters(self) -> dict[str, Any]:
        """The given ones, named as :class:`~tramontane.requests.SamplingParams` has them."""
        found = {name: getattr(self, name) for name in _DIRECT if getattr(self, name) is not None}
        if self.logit_bias is not None:
            found["logit_bias"] = _bias(self.logit_bias)
        if "seed" in found:
            found["seed"] %= 2**64  # OpenAI's seeds may be negative
        return found


_DIRECT = (
    "temperature", "top_p", "top_k", "min_p", "frequency_penalty", "presence_penalty", "repetition_penalty",
    "dry_multiplier", "dry_base", "dry_allowed_length", "dry_sequence_breakers", "seed", "n", "stop", "stop_token_ids",
    "ignore_eos", "min_tokens",
)  # fmt: skip


@frozen(kw_only=True)
class CompletionRequest(Sampling):
    """``POST /v1/completions``."""

    prompt: str | tuple[int, ...] | tuple[str, ...] | tuple[tuple[int, ...], ...]
    echo: bool = False
    logprobs: int | None = None
    best_of: int | None = None
    suffix: str | None = None

    def sampling(self, defaults: Any) -> SamplingParams:
        """Parameters with the model's defaults filled in by ``defaults(**given)``."""
        if self.suffix:
            raise ApiError("suffix is not supported: the model completes to the right only", param="suffix")
        given = self.parameters()
        wanted = given.get("n", 1)
        if self.best_of is not None and self.best_of < wanted:
            raise ApiError(f"best_of ({self.best_of}) must not be below n ({wanted})", param="best_of")
        if self.best_of is not None and self.best_of > wanted and self.stream:
            raise ApiError("best_of cannot be streamed", param="best_of")
        given["n"] = max(wanted, self.best_of or 1)
        given["max_tokens"] = DEFAULT_COMPLETION_TOKENS if self.max_tokens is None else self.max_tokens
        if self.logprobs is not None or given["n"] > wanted:
            given["logprobs"] = self.logprobs or 0
        if self.echo and self.logprobs is not None:
            given["prompt_logprobs"] = self.logprobs
        made: SamplingParams = defaults(**given)
        return made


@frozen(kw_only=True)
class ChatRequest(Sampling):
    """``POST /v1/chat/completions``."""

    messages: tuple[dict[str, Any], ...]
    max_completion_tokens: int | None = None
    logprobs: bool = False
    top_logprobs: int | None = None
    tools: tuple[dict[str, Any], ...] | None = None
    tool_choice: Any = None
    response_format: dict[str, Any] | None = None
    grammar: Any = None
    enable_thinking: bool | None = None
    reasoning_effort: str | None = None
    chat_template_kwargs: dict[str, Any] | None = None
    continue_final_message: bool = False
    add_generation_prompt: bool = True

    def sampling(self, defaults: Any) -> SamplingParams:
        """Parameters with the model's defaults filled in by ``defaults(**given)``."""
        self._refuse_unsupported()
        given = self.parameters()
        limit = self.max_completion_tokens if self.max_completion_tokens is not None else self.max_tokens
        given["max_tokens"] = limit
        if self.top_logprobs is not None and not self.logprobs:
            raise ApiError("top_logprobs needs logprobs: true", param="top_logprobs")
        if self.logprobs:
            given["logprobs"] = self.top_logprobs or 0
        made: SamplingParams = defaults(**given)
        return made

    def template(self) -> dict[str, Any]:
        """What the chat template is given beside the messages."""
        options: dict[str, Any] = {
            "continue_final_message": self.continue_final_message, "add_generation_prompt": self.add_generation_prompt,
        }  # fmt: skip
        if self.continue_final_message:
            options["add_generation_prompt"] = False
        for name in ("enable_thinking", "reasoning_effort"):
            if getattr(self, name) is not None:
                options[name] = getattr(self, name)
        if self.chat_template_kwargs:
            options["chat_template_kwargs"] = self.chat_template_kwargs
        return options

    def _refuse_unsupported(self) -> None:
        if self.tools:
            raise ApiError("tools are not supported by this server yet", param="tools")
        if self.response_format is not None and self.response_format.get("type", "text") != "text":
            raise ApiError("only response_format {'type': 'text'} is supported yet", param="response_format")
        if self.grammar is not None:
            raise ApiError("grammars are not supported by this server yet", param="grammar")


@frozen(kw_only=True)
class EmbeddingRequest:
    """``POST /v1/embeddings``."""

    input: str | tuple[int, ...] | tuple[str, ...] | tuple[tuple[int, ...], ...]
    model: str = "default"
    encoding_format: str = "float"
    dimensions: int | None = None


@frozen(kw_only=True)
class TokenizeRequest:
    """``POST /v1/tokenize``."""

    prompt: str
    model: str = "default"
    add_special_tokens: bool = True


@frozen(kw_only=True)
class DetokenizeRequest:
    """``POST /v1/detokenize``."""

    tokens: tuple[int, ...]
    model: str = "default"


def read(cls: type[T], body: Any) -> T:
    """A request from decoded JSON.

    Raises:
        ApiError: Names the first wrong field; the message names all.
    """
    if not isinstance(body, Mapping):
        raise ApiError("the body must be a JSON object")
    try:
        return read_config(cls, body, "the request")
    except ConfigError as error:
        lines = [line.strip() for line in error.message.splitlines()[1:]]
        param = lines[0].partition(":")[0] if lines else None
        raise ApiError("; ".join(lines) or error.message, param=param) from None


def _bias(given: Mapping[str, float]) -> dict[int, float]:
    try:
        return {int(token): float(bias) for token, bias in given.items()}
    except ValueError:
        raise ApiError("logit_bias must map token ids to numbers", param="logit_bias") from None
