# SPDX-License-Identifier: Apache-2.0
"""The line of figures under an answer."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tramontane.requests import FinishReason

if TYPE_CHECKING:
    from tramontane.api import Completion


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
    if completion.finish_reason is FinishReason.LENGTH:
        parts.append("stopped at the token limit")
    elif completion.finish_reason is FinishReason.CANCELED:
        parts.append("stopped by you")
    return " · ".join(parts)


def _seconds(value: float) -> str:
    return f"{value * 1000:.0f} ms" if value < 1 else f"{value:.2f} s"
