# SPDX-License-Identifier: Apache-2.0
"""What the Python API answers with: frozen records, one per request, and one per piece of a streamed answer.

It imports neither torch nor a tokenizer, and computes nothing beyond the rates of :class:`Usage`.
"""

from __future__ import annotations

from attrs import frozen

from tramontane.requests import FinishReason, TokenLogprobs
from tramontane.tools.calls import ToolCall as ToolCall
from tramontane.tools.calls import ToolCallDelta as ToolCallDelta


@frozen(kw_only=True)
class Usage:
    """How many tokens a request took and how long they took. Times are seconds, rates are tokens per second."""

    prompt_tokens: int
    completion_tokens: int
    """New tokens of all choices together."""
    cached_tokens: int = 0
    """Prompt tokens that were not computed because the prefix cache held them."""
    ttft_s: float = 0.0
    """From handing the request over to its first new token: waiting, prefill and one sampling."""
    prompt_tps: float = 0.0
    """Computed prompt tokens over ``ttft_s``."""
    decode_tps: float = 0.0
    """New tokens after the first over the time from the first to the last; 0 with fewer than two tokens."""
    total_s: float = 0.0

    @classmethod
    def measured(
        cls, *, prompt: int, completion: int, first: int, cached: int, start: float, first_at: float, end: float
    ) -> Usage:
        """Work out the rates.

        Args:
            prompt, completion, cached: Token counts.
            first: How many new tokens arrived at ``first_at`` (one per choice, or more under speculation).
            start, first_at, end: ``time.monotonic()`` at submission, at the first new token and at the last.
        """
        ttft, decode = first_at - start, end - first_at
        return cls(
            prompt_tokens=prompt,
            completion_tokens=completion,
            cached_tokens=cached,
            ttft_s=ttft,
            prompt_tps=(prompt - cached) / ttft if ttft > 0 else 0.0,
            decode_tps=(completion - first) / decode if decode > 0 else 0.0,
            total_s=end - start,
        )


@frozen(kw_only=True)
class Choice:
    """One of the ``n`` sequences a request asked for."""

    index: int
    text: str
    """The new text: without the prompt, the EOS and (unless asked for) the stop string. Of a chat: the visible answer,
    without reasoning and calls."""
    token_ids: tuple[int, ...]
    """Every new token, a final EOS or stop id included."""
    finish_reason: FinishReason
    logprobs: tuple[TokenLogprobs, ...] | None = None
    reasoning: str | None = None
    """What a chat model thought before it answered; ``None`` if it did not."""
    tool_calls: tuple[ToolCall, ...] = ()


@frozen(kw_only=True)
class Completion:
    """The answer to one prompt. With ``n > 1`` the short names below mean the first choice."""

    prompt_token_ids: tuple[int, ...]
    choices: tuple[Choice, ...]
    usage: Usage
    prompt_logprobs: tuple[TokenLogprobs | None, ...] | None = None
    """Per prompt token (the first has none); only with ``SamplingParams(prompt_logprobs=...)``."""

    @property
    def text(self) -> str:
        return self.choices[0].text

    @property
    def token_ids(self) -> tuple[int, ...]:
        return self.choices[0].token_ids

    @property
    def finish_reason(self) -> FinishReason:
        return self.choices[0].finish_reason

    @property
    def reasoning(self) -> str | None:
        return self.choices[0].reasoning

    @property
    def tool_calls(self) -> tuple[ToolCall, ...]:
        return self.choices[0].tool_calls

    @property
    def logprobs(self) -> tuple[TokenLogprobs, ...] | None:
        return self.choices[0].logprobs

    @property
    def index(self) -> int:
        return self.choices[0].index


@frozen(kw_only=True)
class CompletionDelta:
    """A piece of a streamed answer. The texts of a choice's deltas, joined, are the choice's text."""

    prompt: int = 0
    """Position of the prompt in the list given to ``generate``."""
    index: int = 0
    """Which of the prompt's ``n`` choices."""
    text: str = ""
    """Never half a character, and never part of a text that may yet become a stop string."""
    reasoning: str = ""
    tool_calls: tuple[ToolCallDelta, ...] = ()
    token_ids: tuple[int, ...] = ()
    logprobs: tuple[TokenLogprobs, ...] = ()
    finish_reason: FinishReason | None = None
    """Set on the choice's last delta."""
    completion: Completion | None = None
    """Set on the prompt's last delta: the whole answer, with its usage."""
    at: float = 0.0
    """``time.monotonic()`` when the engine delivered it."""
    reasoning_tokens: int = 0
    """How many of its tokens were thought and not said."""
    prompt_logprobs: tuple[TokenLogprobs | None, ...] | None = None
    """Set on the prompt's first delta, if they were asked for; see :class:`Completion`."""

    @property
    def usage(self) -> Usage | None:
        return self.completion.usage if self.completion is not None else None
