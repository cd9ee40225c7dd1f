# SPDX-License-Identifier: Apache-2.0
"""Patterns of module names, as ``rank_pattern`` and ``alpha_pattern`` have them.

They are regular expressions from strangers, so what could take exponential or very long time is refused.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import lru_cache
from typing import TypeVar

from tramontane.errors import AdapterError

T = TypeVar("T")

MAX_PATTERN = 512
"""Characters of a pattern."""
MAX_MODULE = 256
"""Characters of a module's name that is matched."""
MAX_REPEATS = 3
"""Open-ended repetitions in a pattern; the time grows with the length of names to this power."""
_NESTED = re.compile(r"\)\s*[*+{]")
_REPEAT = re.compile(r"(?<!\\)[*+]|\{\d*,\}")


def find_pattern(patterns: Mapping[str, T], module: str, default: T) -> T:
    """The value of the first pattern that matches the end of a module's name from a dot on, as PEFT looks it up.

    Raises:
        AdapterError: A pattern is no regular expression, or one that could take too long.
    """
    if not patterns:
        return default
    if len(module) > MAX_MODULE:
        raise AdapterError(f"the module name {module[:60]!r}... is longer than {MAX_MODULE} characters")
    for pattern, value in patterns.items():
        if _compiled(pattern).match(module):
            return value
    return default


@lru_cache(maxsize=1024)
def _compiled(pattern: str) -> re.Pattern[str]:
    if len(pattern) > MAX_PATTERN or _NESTED.search(pattern) or len(_REPEAT.findall(pattern)) > MAX_REPEATS:
        raise AdapterError(
            f"the pattern {pattern[:60]!r} of a rank or alpha is too long, repeats a group, or repeats too often",
            hint="write the modules' names out",
        )
    try:
        return re.compile(rf"(.*\.)?({pattern})$")
    except (re.error, RecursionError) as error:
        raise AdapterError(f"the pattern {pattern[:60]!r} is no regular expression: {error}") from None
