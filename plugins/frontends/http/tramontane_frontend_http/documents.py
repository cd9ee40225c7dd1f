# SPDX-License-Identifier: Apache-2.0
"""``/openapi.json``, put together from what the frontends say of themselves, and ``/docs``: the same for people.

The page is plain HTML from this server: no script, no style and no image comes from anywhere else.
"""

from __future__ import annotations

import base64
import hashlib
import html
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from starlette.requests import Request
from starlette.responses import HTMLResponse, Response
from starlette.routing import Route

import tramontane
from tramontane.records import FrontendSpec, resolve
from tramontane.wire.openapi import VERSION, operation
from tramontane_frontend_http import management
from tramontane_frontend_http.answers import JsonResponse

_STYLE = """body{font:16px/1.5 system-ui,sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem}
code,pre{font-family:ui-monospace,monospace;font-size:.9em}summary{cursor:pointer;padding:.3rem 0}
.method{display:inline-block;min-width:4.5rem;font-weight:700;text-transform:uppercase}
table{border-collapse:collapse;margin:.5rem 0 1rem 1rem}td,th{text-align:left;padding:.1rem .8rem .1rem 0}
@media(prefers-color-scheme:dark){body{background:#111;color:#ddd}}"""
_DIGEST = base64.b64encode(hashlib.sha256(_STYLE.encode()).digest()).decode()
PAGE_POLICY = f"default-src 'none'; style-src 'sha256-{_DIGEST}'; base-uri 'none'; frame-ancestors 'none'"


def document(frontends: Iterable[FrontendSpec], *, keyed: bool, metrics: bool) -> dict[str, Any]:
    """The OpenAPI document of everything on the port."""
    paths: dict[str, Any] = {"/health": {"get": operation("Whether a model is ready.")}}
    if metrics:
        paths["/metrics"] = {"get": operation("Figures for Prometheus.", answers="text/plain")}
    paths |= management.paths()
    for spec in frontends:
        if spec.openapi is not None:
            paths |= resolve(spec.openapi, spec)()["paths"]
    found: dict[str, Any] = {
        "openapi": VERSION,
        "info": {"title": "Tramontane", "version": tramontane.__version__},
        "paths": paths,
    }
    if keyed:
        found["components"] = {"securitySchemes": {"key": {"type": "http", "scheme": "bearer"}}}
        found["security"] = [{"key": []}]
    return found


def routes(described: Mapping[str, Any]) -> list[Route]:
    """``/openapi.json`` and ``/docs``."""
    page = "".join(_page(described))

    async def openapi(request: Request) -> Response:
        return JsonResponse(described)

    async def docs(request: Request) -> Response:
        return HTMLResponse(page, headers={"Content-Security-Policy": PAGE_POLICY})

    return [Route("/openapi.json", openapi), Route("/docs", docs)]


def _page(described: Mapping[str, Any]) -> Iterator[str]:
    title = html.escape(f"{described['info']['title']} {described['info']['version']}")
    yield f"<!doctype html><html lang=en><meta charset=utf-8><title>{title}</title><style>{_STYLE}</style>"
    yield f"<h1>{title}</h1><p>The same as <a href=openapi.json>openapi.json</a>.</p>"
    for path, methods in described["paths"].items():
        for method, found in methods.items():
            yield f"<details><summary><span class=method>{method}</span> <code>{html.escape(path)}</code> "
            yield f"{html.escape(found['summary'])}</summary>"
            yield from _fields(found)
            yield "</details>"


def _fields(found: Mapping[str, Any]) -> Iterator[str]:
    rows = [(one["name"], one["schema"], one.get("required", False)) for one in found.get("parameters", ())]
    for media in found.get("requestBody", {}).get("content", {}).values():
        schema = media["schema"]
        rows += [(name, kind, name in schema.get("required", ())) for name, kind in schema["properties"].items()]
    if rows:
        yield "<table>"
        for name, schema, required in rows:
            shown = f"<b>{html.escape(name)}</b>" if required else html.escape(name)
            yield f"<tr><td><code>{shown}</code><td>{html.escape(_kind(schema))}"
        yield "</table>"


def _kind(schema: Mapping[str, Any]) -> str:
    """A schema in a few words."""
    if "anyOf" in schema:
        return " or ".join(_kind(one) for one in schema["anyOf"] if one.get("type") != "null")
    if "enum" in schema:
        return ", ".join(map(repr, schema["enum"]))
    if schema.get("type") == "array":
        return f"list of {_kind(schema['items'])}"
    return str(schema.get("type", "anything"))
