# SPDX-License-Identifier: Apache-2.0
"""One HTTP port for every web frontend. ``make_app(host)`` embeds it in any ASGI server."""

from __future__ import annotations

from typing import Any

__all__ = ["ServerSettings", "make_app"]


def __getattr__(name: str) -> Any:
    if name == "make_app":
        from tramontane_frontend_http.app import make_app

        return make_app
    if name == "ServerSettings":
        from tramontane_frontend_http.settings import ServerSettings

        return ServerSettings
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
