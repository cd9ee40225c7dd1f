# SPDX-License-Identifier: Apache-2.0
"""Grids of test cases of which only a part runs each time."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import Any

import pytest


def mostly_full(cases: Iterable[Any], usual: Collection[Any]) -> list[Any]:
    """Values to parametrize a test with: those outside ``usual`` run with the tests marked ``full`` only."""
    return [one if one in usual else pytest.param(one, marks=pytest.mark.full) for one in cases]
