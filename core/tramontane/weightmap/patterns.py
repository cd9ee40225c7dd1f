# SPDX-License-Identifier: Apache-2.0
"""Patterns of module paths that can be matched and filled in: ``model.layers.{i}.mlp.{which}_proj``.

``{name}`` stands for (a part of) one path segment, ``{name...}`` for one or more whole segments. Unlike a regular
expression and a replacement text, a pair of patterns with the same names can be used in both directions.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import lru_cache

from tramontane.errors import PlanError

_HOLE = re.compile(r"\{([A-Za-z_]\w*)(\.\.\.)?\}")


@lru_cache(maxsize=4096)
def holes(pattern: str) -> frozenset[str]:
    """Names of the placeholders."""
    return frozenset(match[1] for match in _HOLE.finditer(pattern))


@lru_cache(maxsize=4096)
def _compiled(pattern: str) -> re.Pattern[str]:
    """Matches the module itself, and the module followed by one field (or by ``weight`` and what is kept beside it)."""
    parts, end, seen = [], 0, set()
    for match in _HOLE.finditer(pattern):
        name = match[1]
        if name in seen:
            raise PlanError(f"the pattern {pattern!r} uses the placeholder {name!r} twice")
        seen.add(name)
        parts += [re.escape(pattern[end : match.start()]), f"(?P<{name}>{'.+?' if match[2] else '[^.]+?'})"]
        end = match.end()
    parts.append(re.escape(pattern[end:]))
    return re.compile(f"{''.join(parts)}(?P<__field>\\.weight(?:\\.[^.]+)+|\\.[^.]+)?")


def match(pattern: str, name: str) -> tuple[dict[str, str], str] | None:
    """Placeholders and field of a tensor name whose module path fits the pattern.

    The field has its dot (``.weight``); it is empty where the name is the module path itself.
    """
    found = _compiled(pattern).fullmatch(name)
    if found is None:
        return None
    values = found.groupdict()
    return values, values.pop("__field") or ""


def fill(pattern: str, values: Mapping[str, str]) -> str:
    """The pattern with its placeholders filled in."""
    return _HOLE.sub(lambda hole: values[hole[1]], pattern)


def check_same(*patterns: str, beside: frozenset[str] = frozenset()) -> None:
    """Refuse patterns whose placeholders differ (``beside``: the first may lack these).

    Raises:
        PlanError: Names the patterns.
    """
    first = holes(patterns[0]) | beside
    for pattern in patterns[1:]:
        if holes(pattern) != first:
            raise PlanError(f"{patterns[0]!r} and {pattern!r} must have the same placeholders to be reversible")
