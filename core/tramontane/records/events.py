# SPDX-License-Identifier: Apache-2.0
"""What observers are told: plain facts about engines and finished requests. They are not contributions."""

from __future__ import annotations

from typing import TYPE_CHECKING

from attrs import frozen

if TYPE_CHECKING:
    from tramontane.requests import FinishReason


@frozen(kw_only=True)
class EngineInfo:
    """An engine that has started, or has stopped."""

    model: str
    """The name under which the model is served."""
    architecture: str
    backend: str
    device: str
    dtype: str
    quant: str | None = None
    capture: str = ""
    """``captured`` where steps are replayed from a recording, or why not."""
    max_model_len: int = 0
    """Longest sequence in tokens."""
    load_s: float = 0.0
    """Seconds from the reference to a ready engine."""


@frozen(kw_only=True)
class RequestSummary:
    """A request that has ended. Times are in seconds."""

    model: str
    request_id: str
    finish_reason: FinishReason
    prompt_tokens: int
    completion_tokens: int
    cached_tokens: int = 0
    """Prompt tokens that came from the prefix cache."""
    queue_s: float = 0.0
    """From arrival to the first step that ran it."""
    ttft_s: float = 0.0
    """From arrival to the first token."""
    total_s: float = 0.0
    """From arrival to the end."""
