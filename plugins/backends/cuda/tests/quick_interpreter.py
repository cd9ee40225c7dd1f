# SPDX-License-Identifier: Apache-2.0
"""Triton's interpreter without its greatest cost: it patches the whole language again for each call within a kernel.

A kernel made of small functions spends nine tenths of its time so. Once is enough, where the language that a function
sees is the interpreter's already; where it is not, the call goes Triton's way.
"""

from __future__ import annotations

from typing import Any

import triton.language as tl
from triton.runtime.interpreter import InterpretedFunction

_PLAIN = {lang: lang.load for lang in (tl, tl.core)}
_call = InterpretedFunction.__call__
_seen: dict[Any, list[Any]] = {}
"""The parts of the language that a function sees."""


def _call_once_patched(self: Any, *arguments: Any, **options: Any) -> Any:
    seen = _seen.get(self.fn)
    if seen is None:
        found = self.fn.__globals__.values()
        seen = _seen[self.fn] = [lang for lang in _PLAIN if any(one is lang for one in found)]
    if all(lang.load is not _PLAIN[lang] for lang in seen):
        return self.rewrite()(*arguments, **options)
    return _call(self, *arguments, **options)


def install() -> None:
    """For all kernels from now on."""
    InterpretedFunction.__call__ = _call_once_patched
