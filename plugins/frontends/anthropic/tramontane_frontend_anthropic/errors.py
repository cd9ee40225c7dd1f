# SPDX-License-Identifier: Apache-2.0
"""Errors in Anthropic's envelope: ``{"type": "error", "error": {"type", "message"}, "request_id"}``."""

from __future__ import annotations

from typing import Any

import orjson
from starlette.responses import Response

from tramontane.errors import TramontaneError
from tramontane.wire import public_message, status_of
from tramontane.wire.errors import headers_of, kind_of


def envelope(error: TramontaneError, request_id: str | None) -> dict[str, Any]:
    """The body of an error answer; the message names the field, as Anthropic's do."""
    param, message = getattr(error, "param", None), public_message(error)
    said = message if param is None or param in message else f"{param}: {message}"
    return {"type": "error", "error": {"type": kind_of(status_of(error)), "message": said}, "request_id": request_id}


def respond(error: TramontaneError, request_id: str | None) -> Response:
    """An error as an answer."""
    body, status = orjson.dumps(envelope(error, request_id)), status_of(error)
    return Response(body, status, media_type="application/json", headers=headers(request_id) | headers_of(status))


def headers(request_id: str | None) -> dict[str, str]:
    """Headers of every answer: clients report the id under this name."""
    return {} if request_id is None else {"request-id": request_id}
