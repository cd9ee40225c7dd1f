# SPDX-License-Identifier: Apache-2.0
"""The Python API over an engine: ``LLM`` for threads, ``AsyncLLM`` for event loops, and the records they answer with.

It owns templates, tokenizing, stop strings and times; it never decides which tokens run. Names are resolved on first
use, so that the records can be had without torch.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tramontane.api.async_llm import AsyncLLM as AsyncLLM
    from tramontane.api.llm import LLM as LLM
    from tramontane.api.results import Choice as Choice
    from tramontane.api.results import Completion as Completion
    from tramontane.api.results import CompletionDelta as CompletionDelta
    from tramontane.api.results import ToolCall as ToolCall
    from tramontane.api.results import ToolCallDelta as ToolCallDelta
    from tramontane.api.results import Usage as Usage
    from tramontane.api.settings import ModelSettings as ModelSettings
    from tramontane.api.settings import RequestSettings as RequestSettings
    from tramontane.api.streams import AsyncCompletionStream as AsyncCompletionStream
    from tramontane.api.streams import CompletionStream as CompletionStream

_HOMES = {
    "LLM": "llm",
    "AsyncLLM": "async_llm",
    "Choice": "results",
    "Completion": "results",
    "CompletionDelta": "results",
    "ToolCall": "results",
    "ToolCallDelta": "results",
    "Usage": "results",
    "ModelSettings": "settings",
    "RequestSettings": "settings",
    "AsyncCompletionStream": "streams",
    "CompletionStream": "streams",
}

__all__ = list(_HOMES)


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
