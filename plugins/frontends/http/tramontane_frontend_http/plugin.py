# SPDX-License-Identifier: Apache-2.0
"""Hooks of tramontane-frontend-http."""

from __future__ import annotations

from tramontane import hookimpl
from tramontane.records import CommandSpec


@hookimpl
def tramontane_commands() -> list[CommandSpec]:
    """The server."""
    return [
        CommandSpec(
            name="serve",
            command="tramontane_frontend_http.cli:command",
            help="Serve models over HTTP (OpenAI API ...).",
        )
    ]
