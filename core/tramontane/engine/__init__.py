# SPDX-License-Identifier: Apache-2.0
"""The engine: the loop that turns requests into deltas, and the thread it runs in. Names are resolved on first use."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tramontane.engine.config import EngineConfig as EngineConfig
    from tramontane.engine.core import EngineCore as EngineCore
    from tramontane.engine.runner import Pending as Pending
    from tramontane.engine.runner import Runner as Runner
    from tramontane.engine.runner import StepResult as StepResult
    from tramontane.engine.sinks import AsyncSink as AsyncSink
    from tramontane.engine.sinks import QueueSink as QueueSink
    from tramontane.engine.sinks import Sink as Sink
    from tramontane.engine.stats import EngineStats as EngineStats
    from tramontane.engine.thread import EngineThread as EngineThread

_HOMES = {
    "AsyncSink": "sinks",
    "EngineConfig": "config",
    "EngineCore": "core",
    "EngineStats": "stats",
    "EngineThread": "thread",
    "Pending": "runner",
    "QueueSink": "sinks",
    "Runner": "runner",
    "Sink": "sinks",
    "StepResult": "runner",
}

__all__ = list(_HOMES)


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
