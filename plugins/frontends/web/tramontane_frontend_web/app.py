# SPDX-License-Identifier: Apache-2.0
"""Serves the page. It never touches a model: the page itself calls the API that is mounted next to it.

The policy lets the page load scripts and styles from its own files alone, talk to its own origin alone, and show no
image but its own and inlined ones, so that nothing a model says can make a browser send anything elsewhere.
"""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.types import ASGIApp, Receive, Scope, Send

from tramontane.host import Host
from tramontane.wire.errors import kind_of
from tramontane.wire.scope import path_below_root
from tramontane_frontend_web.files import StaticFile, files

POLICY = "; ".join((
    "default-src 'none'", "script-src 'self'", "style-src 'self'", "img-src 'self' data:", "connect-src 'self'",
    "base-uri 'none'", "form-action 'none'", "frame-ancestors 'none'", "require-trusted-types-for 'script'",
    "trusted-types dompurify",
))  # fmt: skip
HEADERS = {
    "Content-Security-Policy": POLICY,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=(), payment=(), usb=()",
    "Cache-Control": "no-cache",  # asked for again each time, and mostly answered 304
}


def make_app(host: Host) -> ASGIApp:
    """The page as an ASGI application. The models are the API's affair, so the host is not asked for anything."""
    found = files()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            await _answer(Request(scope), found)(scope, receive, send)

    return app


def _answer(request: Request, found: dict[str, StaticFile]) -> Response:
    file = found.get(path_below_root(request))
    if file is None:
        return _refuse(404, "not_found", f"nothing is at {request.scope['path'][:200]}")
    if request.method not in ("GET", "HEAD"):
        return _refuse(405, "method_not_allowed", "the page is only read", {"Allow": "GET, HEAD"})
    headers = {**HEADERS, "ETag": file.etag}
    if file.etag in (one.strip() for one in request.headers.get("if-none-match", "").split(",")):
        return Response(status_code=304, headers=headers)
    content = file.content if request.method == "GET" else b""
    return Response(content, media_type=file.media_type, headers=headers | {"Content-Length": str(len(file.content))})


def _refuse(status: int, code: str, message: str, headers: dict[str, str] | None = None) -> Response:
    fault = {"message": message, "type": kind_of(status), "param": None, "code": code}
    return JSONResponse({"error": fault}, status, headers)
