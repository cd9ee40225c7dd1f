# SPDX-License-Identifier: Apache-2.0
"""Hooks of tramontane-frontend-chat."""

from __future__ import annotations

from tramontane import hookimpl
from tramontane.records import FrontendSpec


@hookimpl
def tramontane_frontends() -> FrontendSpec:
    """The terminal chat that ``tramontane run`` opens."""
    return FrontendSpec(name="chat", run="tramontane_frontend_chat.app:run")
