# SPDX-License-Identifier: Apache-2.0
"""Errors in OpenAI's envelope: ``{"error": {"message", "type", "param", "code"}}``."""

from __future__ import annotations

from typing import Any

import orjson
from starlette.responses import Response

from tramontane.errors import (
    EngineClosedError,
    EngineError,
    PromptTooLongError,
    RequestError,
    TramontaneError,
    UnknownNameError,
)


class ApiError(RequestError):
    """A request that cannot be served as it is; ``param`` names the field."""

    def __init__(self, message: str, *, param: str | None = None, status: int = 400, code: str | None = None) -> None:
        super().__init__(message)
        self.param = param
        self.status = status
        self.wire_code = code


def status_of(error: TramontaneError) -> int:
    """The HTTP status of an error."""
    if isinstance(error, ApiError):
        return error.status
    if isinstance(error, UnknownNameError):
        return 404
    if isinstance(error, EngineClosedError):
        return 503
    return 400 if isinstance(error, RequestError) else 500


def envelope(error: TramontaneError) -> dict[str, Any]:
    """The body of an error answer. Errors of the inside carry no text from there."""
    status = status_of(error)
    code: str | None = error.code
    if isinstance(error, ApiError):
        code = error.wire_code
    elif isinstance(error, UnknownNameError):
        code = "model_not_found"
    elif isinstance(error, PromptTooLongError):
        code = "context_length_exceeded"
    kind = "invalid_request_error" if status < 500 else "server_error"
    message = error.message if not isinstance(error, EngineError) else "the model failed on this request"
    return {"error": {"message": message, "type": kind, "param": getattr(error, "param", None), "code": code}}


def respond(error: TramontaneError) -> Response:
    """An error as an answer."""
    return Response(orjson.dumps(envelope(error)), status_of(error), media_type="application/json")
