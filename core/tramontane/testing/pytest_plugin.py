# SPDX-License-Identifier: Apache-2.0
"""The pytest plugin of the testing kit: the conformance kit's options, and a fixture that seals plugins.

It is loaded by pytest itself (``pytest11``), before coverage starts and in projects that only happen to have Tramontane
installed; so it imports nothing but pytest at module level. The options live here because ``pytest --pyargs`` reads no
``conftest.py`` early enough to add options.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from typing import TYPE_CHECKING, Protocol

import pytest

if TYPE_CHECKING:
    from tramontane.plugins import Plugins, Settings


class SealPlugins(Protocol):
    """What the fixture ``seal_plugins`` gives; see :func:`tramontane.testing.sealed.sealed`."""

    def __call__(self, *modules: object, core: bool = True, settings: Settings | None = None) -> Plugins:
        """Make exactly these the process's plugins until the test ends."""


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


@pytest.fixture
def seal_plugins() -> Iterator[SealPlugins]:
    """For the test's duration the process has no plugin but the core's own; call it to name others.

    >>> def test_my_plugin(seal_plugins):
    ...     plugins = seal_plugins(my_plugin.plugin)
    ...     assert plugins.catalogs.architectures.get("FooForCausalLM").name == "foo"
    """
    from tramontane.plugins import using
    from tramontane.testing.sealed import sealed

    with ExitStack() as stack:

        def seal(*modules: object, core: bool = True, settings: Settings | None = None) -> Plugins:
            return stack.enter_context(using(sealed(*modules, core=core, settings=settings)))

        seal()
        yield seal
