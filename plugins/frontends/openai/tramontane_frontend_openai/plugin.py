# SPDX-License-Identifier: Apache-2.0
"""Hooks of tramontane-frontend-openai."""

from __future__ import annotations

from tramontane import hookimpl
from tramontane.records import FrontendSpec


@hookimpl
def tramontane_frontends() -> list[FrontendSpec]:
    """The API under ``/v1``."""
    return [
        FrontendSpec(
            name="openai",
            app="tramontane_frontend_openai.app:make_app",
            mount="/v1",
            also=("/tokenize", "/detokenize"),
            openapi="tramontane_frontend_openai.openapi:describe",
        )
    ]
