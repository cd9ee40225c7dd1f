# SPDX-License-Identifier: Apache-2.0
"""Hooks of tramontane-frontend-anthropic."""

from __future__ import annotations

from tramontane import hookimpl
from tramontane.records import FrontendSpec


@hookimpl
def tramontane_frontends() -> list[FrontendSpec]:
    """The API under ``/v1/messages``."""
    return [
        FrontendSpec(
            name="anthropic",
            app="tramontane_frontend_anthropic.app:make_app",
            mount="/v1/messages",
            openapi="tramontane_frontend_anthropic.openapi:describe",
        )
    ]
