# SPDX-License-Identifier: Apache-2.0
"""What the shapes of answers share: usage, reasons, spelled tokens."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from attrs import define

from tramontane.api.results import CompletionDelta, Usage
from tramontane.requests import FinishReason, TokenLogprobs

Spell = Callable[[int], bytes]
"""A token id -> its bytes."""

_REASONS = {
    FinishReason.STOP: "stop",
    FinishReason.LENGTH: "length",
    FinishReason.CANCELED: "stop",
    FinishReason.ERROR: "error",
    FinishReason.TOOL_CALLS: "tool_calls",
}


def usage(found: Sequence[Usage], reasoning: int = 0) -> dict[str, Any]:
    """Usage over the prompts of one request; figures beyond OpenAI's are times and rates."""
    prompt, completion = sum(u.prompt_tokens for u in found), sum(u.completion_tokens for u in found)
    return {
        "prompt_tokens": prompt,
        "completion_tokens": completion,
        "total_tokens": prompt + completion,
        "prompt_tokens_details": {"cached_tokens": sum(u.cached_tokens for u in found)},
        "completion_tokens_details": {"reasoning_tokens": reasoning},
        "ttft_s": min((u.ttft_s for u in found), default=0.0),
        "prompt_tps": sum(u.prompt_tps for u in found),
        "decode_tps": sum(u.decode_tps for u in found),
    }


@define
class UsageMeanwhile:
    """What a stream has used so far, for clients that ask for it in every chunk."""

    prompt_tokens: int
    completion_tokens: int = 0

    def after(self, delta: CompletionDelta) -> dict[str, Any]:
        """Usage with a further delta."""
        self.completion_tokens += len(delta.token_ids)
        return {
            "prompt_tokens": self.prompt_tokens,
            "completion_tokens": self.completion_tokens,
            "total_tokens": self.prompt_tokens + self.completion_tokens,
        }


def finish(reason: FinishReason | None) -> str | None:
    """OpenAI's word for why a sequence ended."""
    return None if reason is None else _REASONS[reason]


def token_entries(found: Sequence[TokenLogprobs], spell: Spell) -> list[dict[str, Any]]:
    """Log-probabilities as chat completions and responses spell them."""

    def entry(token: int, logprob: float) -> dict[str, Any]:
        spelled = spell(token)
        return {"token": spelled.decode("utf-8", "replace"), "logprob": logprob, "bytes": list(spelled)}

    return [entry(one.token_id, one.logprob) | {"top_logprobs": [entry(*pair) for pair in one.top]} for one in found]
