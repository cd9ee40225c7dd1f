# SPDX-License-Identifier: Apache-2.0
"""Errors of requests that came over a network, and what of any error may go back over it."""

from __future__ import annotations

from tramontane.errors import (
    EngineClosedError,
    EngineDiedError,
    EngineError,
    RequestError,
    TramontaneError,
    UnknownNameError,
)

_KINDS = {
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    413: "request_too_large",
    429: "rate_limit_error",
    503: "overloaded_error",
}
RETRY_AFTER_S = 5
"""Whoever gets a 503 may try again after so many seconds: a model that died or was stopped is started anew."""


class FieldError(RequestError):
    """A request that cannot be served as it is.

    Args:
        message: What is wrong.
        param: The field, as a path within the body (``messages[0].role``).
        status: The HTTP status of the answer.
        wire_code: A vendor's stable word for the fault.
    """

    def __init__(
        self, message: str, *, param: str | None = None, status: int = 400, wire_code: str | None = None
    ) -> None:
        super().__init__(message, param=param)
        self.status = status
        self.wire_code = wire_code


def status_of(error: TramontaneError) -> int:
    """The HTTP status of an error."""
    if isinstance(error, FieldError):
        return error.status
    if isinstance(error, UnknownNameError):
        return 404
    if isinstance(error, EngineClosedError | EngineDiedError):
        return 503
    return 400 if isinstance(error, RequestError) else 500


def headers_of(status: int) -> dict[str, str]:
    """What an error's answer carries beside its body: of one that passes, when to try again."""
    return {"Retry-After": str(RETRY_AFTER_S)} if status == 503 else {}


def kind_of(status: int) -> str:
    """The word for what kind of fault a status is. Anthropic's clients know these words; OpenAI's go by the status."""
    return _KINDS.get(status, "invalid_request_error" if status < 500 else "api_error")


def public_message(error: TramontaneError) -> str:
    """What a client may read of an error. Of faults of the inside it learns nothing: they name paths and addresses."""
    if status_of(error) < 500:
        return f"{error.message}; {error.hint}" if error.hint else error.message
    if isinstance(error, EngineClosedError):
        return "the model was stopped"
    if isinstance(error, EngineDiedError):
        return "the model's process ended and is started anew; try again shortly"
    return "the model failed on this request" if isinstance(error, EngineError) else "the server failed"
