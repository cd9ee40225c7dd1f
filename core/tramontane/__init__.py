# SPDX-License-Identifier: Apache-2.0
"""Tramontane: an LLM inference engine built as a small core and plugins.

This module owns the public names and nothing else. Each name is imported the first time it is used (PEP 562), so that
``import tramontane`` costs a few milliseconds: it imports neither torch nor any third-party package.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tramontane.api import LLM as LLM
    from tramontane.api import AsyncLLM as AsyncLLM
    from tramontane.errors import TramontaneError as TramontaneError
    from tramontane.hooks import hookimpl as hookimpl
    from tramontane.requests import SamplingParams as SamplingParams

__version__ = "0.1.0"

#: The version of the contract between core and plugins; the core accepts this one and the one before.
PLUGIN_API = 1

_HOMES = {
    "LLM": "tramontane.api",
    "AsyncLLM": "tramontane.api",
    "SamplingParams": "tramontane.requests",
    "TramontaneError": "tramontane.errors",
    "hookimpl": "tramontane.hooks",
}

__all__ = ["LLM", "PLUGIN_API", "AsyncLLM", "SamplingParams", "TramontaneError", "__version__", "hookimpl"]


def __getattr__(name: str) -> Any:
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(home), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOMES})
