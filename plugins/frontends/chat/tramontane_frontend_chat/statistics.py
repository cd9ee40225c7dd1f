# SPDX-License-Identifier: Apache-2.0
"""Figures: the line under an answer, and the status line that stands below the text while it grows and is typed."""

from __future__ import annotations

from typing import TYPE_CHECKING

from attrs import define

from tramontane.requests import FinishReason

if TYPE_CHECKING:
    from tramontane.api import Completion, CompletionDelta, Usage

_ENDINGS = {FinishReason.LENGTH: "stopped at the token limit", FinishReason.CANCELED: "stopped by you"}


def ending(completion: Completion) -> str | None:
    """Why an answer ended, if not by itself."""
    return _ENDINGS.get(completion.finish_reason)


def summary(completion: Completion, context: int) -> str:
    """One line: time to first token, prompt and decode rates, context used, and why it ended if not by itself.

    Args:
        completion: The answer.
        context: The most tokens a sequence may have.
    """
    usage = completion.usage
    prompt = f"prompt {usage.prompt_tokens} tokens"
    if usage.cached_tokens:
        prompt += f" ({usage.cached_tokens} cached)"
    parts = [
        f"first token {_seconds(usage.ttft_s)}",
        f"{prompt}, {usage.prompt_tps:.1f}/s",
        f"answer {usage.completion_tokens} tokens, {usage.decode_tps:.1f}/s",
        f"context {usage.prompt_tokens + usage.completion_tokens}/{context}",
    ]
    why = ending(completion)
    return " · ".join([*parts, why] if why else parts)


def _seconds(value: float) -> str:
    return f"{value * 1000:.0f} ms" if value < 1 else f"{value:.2f} s"


@define
class Meter:
    """What the status line tells: of the answer that is being written, else of the last one."""

    usage: Usage | None = None
    """Of the last whole answer; ``None`` where the conversation is new."""
    _tokens: int = 0
    _at_first: int = 0
    """How many of them the first piece brought."""
    _first: float = 0.0
    _last: float = 0.0

    def begin(self) -> None:
        """An answer is asked for."""
        self._tokens = self._at_first = 0

    def add(self, delta: CompletionDelta) -> None:
        """A piece of it has come."""
        if not delta.token_ids:
            return
        if not self._tokens:
            self._first, self._at_first = delta.at, len(delta.token_ids)
        self._last = delta.at
        self._tokens += len(delta.token_ids)

    def end(self, completion: Completion) -> None:
        """It is whole."""
        self.usage = completion.usage

    def clear(self) -> None:
        """The conversation begins anew."""
        self.usage = None

    def growing(self) -> str:
        """The line while an answer is written: tokens so far and their rate."""
        seconds = self._last - self._first
        more = self._tokens - self._at_first
        rate = f" · {more / seconds:.1f} tokens/s" if more and seconds > 0 else ""
        return f"{self._tokens} token{'s' * (self._tokens != 1)}{rate} · Ctrl-C stops"

    def line(self, name: str, context: int) -> str:
        """The line while the next message is typed: rate, context used, what the prefix cache held of the prompt.

        What matters comes first: a narrow window cuts the line.

        Args:
            name: The model's.
            context: The most tokens a sequence may have.
        """
        usage = self.usage
        if usage is None:
            return f"context 0/{context} · {name} · /help"
        used = usage.prompt_tokens + usage.completion_tokens
        return (
            f"{usage.decode_tps:.1f} tokens/s · context {used}/{context} ({used / context:.0%}) · "
            f"cache hits {usage.cached_tokens}/{usage.prompt_tokens} · {name} · /help"
        )
