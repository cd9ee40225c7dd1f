# SPDX-License-Identifier: Apache-2.0
"""Hooks of tramontane-frontend-web."""

from __future__ import annotations

from tramontane import hookimpl
from tramontane.records import FrontendSpec


@hookimpl
def tramontane_frontends() -> list[FrontendSpec]:
    """The page at ``/``, whose files need no key: it asks for one where the API does."""
    return [
        FrontendSpec(
            name="web",
            app="tramontane_frontend_web.app:make_app",
            mount="/",
            keyless="tramontane_frontend_web.files:paths",
        )
    ]
