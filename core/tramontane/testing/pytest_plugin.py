# SPDX-License-Identifier: Apache-2.0
"""The pytest plugin of the testing kit: command-line options of the conformance kit, and the sealed fixture.

It is loaded by pytest itself (``pytest11``), before coverage starts and in projects that only happen to have Tramontane
installed; so it imports nothing but pytest at module level. The options live here because ``pytest --pyargs`` reads no
``conftest.py`` early enough to add options.
"""

from __future__ import annotations

import pytest


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the options of ``pytest --pyargs tramontane.testing.conformance``."""
    group = parser.getgroup("tramontane", "Tramontane's conformance kit")
    group.addoption(
        "--tramontane-target",
        action="append",
        default=[],
        metavar="DIST",
        help="distribution whose plugins the conformance kit tests (may be repeated)",
    )
