# SPDX-License-Identifier: Apache-2.0
"""Which first-party distribution brings what, whether or not it is installed.

``known_plugins.json`` beside the core is written by ``scripts/sync_plugins.py`` from the catalogs of a full checkout.
"""

from __future__ import annotations

import json
from functools import cache
from importlib import resources

FILE_ENDING = "file ending"
"""The kind whose keys are what files' names end in, with the dot: who opens them."""


@cache
def _known() -> dict[str, dict[str, str]]:
    text = resources.files("tramontane").joinpath("known_plugins.json").read_text(encoding="utf-8")
    table: dict[str, dict[str, str]] = json.loads(text)
    return table


def distribution_of(kind: str, key: str) -> str | None:
    """The first-party distribution that brings ``key``, if there is one."""
    return _known().get(kind, {}).get(key)


def distributions_of(kind: str) -> tuple[str, ...]:
    """The first-party distributions that bring something of a kind."""
    return tuple(sorted(set(_known().get(kind, {}).values())))
