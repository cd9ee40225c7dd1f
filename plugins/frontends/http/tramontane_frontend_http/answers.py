# SPDX-License-Identifier: Apache-2.0
"""Plain answers that the server itself gives, before or instead of a frontend."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import orjson
from starlette.responses import Response
from starlette.types import Receive, Scope, Send


class JsonResponse(Response):
    """JSON by orjson."""

    media_type = "application/json"

    def render(self, content: Any) -> bytes:
        return orjson.dumps(content, option=orjson.OPT_NON_STR_KEYS)


async def refuse(
    scope: Scope, receive: Receive, send: Send, status: int, code: str, message: str,
    headers: Mapping[str, str] | None = None,
) -> None:  # fmt: skip
    """Answer with an error in the envelope that OpenAI's clients read; every frontend of the port shares it."""
    kind = (
        "authentication_error"
        if status in (401, 403)
        else "rate_limit_error"
        if status == 429
        else "invalid_request_error"
    )
    body = {"error": {"message": message, "type": kind, "param": None, "code": code}}
    await JsonResponse(body, status, headers=dict(headers or {}))(scope, receive, send)
