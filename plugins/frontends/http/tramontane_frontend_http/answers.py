# SPDX-License-Identifier: Apache-2.0
"""Plain answers that the server itself gives, before or instead of a frontend."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import orjson
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from tramontane.wire.errors import headers_of, kind_of
from tramontane.wire.scope import request_id


class JsonResponse(Response):
    """JSON by orjson."""

    media_type = "application/json"

    def render(self, content: Any) -> bytes:
        return orjson.dumps(content, option=orjson.OPT_NON_STR_KEYS)


def refusal(
    scope: Scope, status: int, code: str, message: str, *, param: str | None = None,
    headers: Mapping[str, str] | None = None,
) -> JsonResponse:  # fmt: skip
    """An error that clients of every API of the port can read: OpenAI's look into ``error`` alone, Anthropic's also
    want ``type`` and ``request_id`` around it."""
    body = {
        "type": "error",
        "error": {"message": message, "type": kind_of(status), "param": param, "code": code},
        "request_id": request_id(scope),
    }
    return JsonResponse(body, status, headers={**headers_of(status), **(headers or {})})


def not_for_users(scope: Scope) -> JsonResponse:
    """What a request gets whose key is a user's, where an admin's is needed."""
    return refusal(scope, 403, "admin_key_needed", "this needs an admin's key")


async def refuse(
    scope: Scope, receive: Receive, send: Send, status: int, code: str, message: str,
    headers: Mapping[str, str] | None = None,
) -> None:  # fmt: skip
    """Answer with an error."""
    await refusal(scope, status, code, message, headers=headers)(scope, receive, send)
