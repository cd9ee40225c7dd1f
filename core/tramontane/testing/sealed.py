# SPDX-License-Identifier: Apache-2.0
"""Plugins for tests that do not depend on what happens to be installed on this machine."""

from __future__ import annotations

from tramontane.plugins import Plugins, Settings, discovery


def sealed(*modules: object, core: bool = True, settings: Settings | None = None) -> Plugins:
    """Load exactly these plugins.

    Args:
        modules: Modules, or any objects with hook implementations. One that fails is a row of ``reports``.
        core: Whether the core's own defaults are there too.
        settings: What the environment would say; it is not read.
    """
    candidates = [discovery.core()] if core else []
    candidates += [discovery.from_module(module) for module in modules]
    return Plugins.load(candidates, settings or Settings())
