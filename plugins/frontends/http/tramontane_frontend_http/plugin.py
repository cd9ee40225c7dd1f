# SPDX-License-Identifier: Apache-2.0
"""Hooks of tramontane-frontend-http."""

from __future__ import annotations

import sys

from tramontane import hookimpl
from tramontane.records import CommandSpec, RequestSummary


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


@hookimpl
def tramontane_request_finished(request: RequestSummary) -> None:
    """Times for Prometheus, in processes that serve: others never import what counts them."""
    metrics = sys.modules.get("tramontane_frontend_http.metrics")
    if metrics is not None:
        metrics.times().note(request)
