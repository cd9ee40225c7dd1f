# SPDX-License-Identifier: Apache-2.0
"""Errors in OpenAI's envelope: ``{"error": {"message", "type", "param", "code"}}``."""

from __future__ import annotations

from typing import Any

import orjson
from starlette.responses import Response

from tramontane.errors import PromptTooLongError, RequestError, TramontaneError, UnknownNameError
from tramontane.wire import FieldError, public_message, status_of
from tramontane.wire.errors import headers_of


def missing(kind: str, name: str) -> FieldError:
    """The error of an object that is not there."""
    return FieldError(f"there is no {kind} {name!r}", status=404, wire_code=f"{kind.replace(' ', '_')}_not_found")


def envelope(error: TramontaneError) -> dict[str, Any]:
    """The body of an error answer."""
    code: str | None = error.code
    if isinstance(error, FieldError):
        code = error.wire_code
    elif isinstance(error, UnknownNameError):
        code = "model_not_found"
    elif isinstance(error, PromptTooLongError):
        code = "context_length_exceeded"
    kind = "invalid_request_error" if status_of(error) < 500 else "server_error"
    param = error.param if isinstance(error, RequestError) else None
    return {"error": {"message": public_message(error), "type": kind, "param": param, "code": code}}


def respond(error: TramontaneError) -> Response:
    """An error as an answer."""
    body, status = orjson.dumps(envelope(error)), status_of(error)
    return Response(body, status, media_type="application/json", headers=headers_of(status))
