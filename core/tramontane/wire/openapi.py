# SPDX-License-Identifier: Apache-2.0
"""Pieces of OpenAPI documents (https://spec.openapis.org/oas/v3.1.0), made from what routes read."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tramontane.wire.schema import json_schema

VERSION = "3.1.0"
_ERROR = {
    "type": "object",
    "required": ["error"],
    "properties": {
        "error": {
            "type": "object",
            "required": ["type", "message"],
            "properties": {"type": {"type": "string"}, "message": {"type": "string"}},
        }
    },
}


def operation(
    summary: str,
    *,
    body: type | None = None,
    form: Mapping[str, Any] | None = None,
    query: Mapping[str, Mapping[str, Any]] | None = None,
    path: tuple[str, ...] = (),
    streams: bool = False,
    answers: str = "application/json",
) -> dict[str, Any]:
    """One method of one path.

    Args:
        summary: What it does, in a sentence.
        body: The attrs class that its JSON is read into.
        form: Or the schema of its multipart form.
        query: Schemas of its query's parameters.
        path: Names of the path's parameters.
        streams: It may answer with events.
        answers: The media type of its answer.
    """
    content: dict[str, Any] = {answers: {"schema": {"type": "object"} if answers == "application/json" else {}}}
    if streams:
        content["text/event-stream"] = {"schema": {"type": "string"}}
    found: dict[str, Any] = {
        "summary": summary,
        "responses": {
            "200": {"description": "The answer.", "content": content},
            "4XX": {"description": "The request is refused.", "content": {"application/json": {"schema": _ERROR}}},
            "5XX": {"description": "The server failed.", "content": {"application/json": {"schema": _ERROR}}},
        },
    }
    if body is not None:
        found["requestBody"] = _body("application/json", json_schema(body))
    elif form is not None:
        found["requestBody"] = _body("multipart/form-data", dict(form))
    text = {"type": "string", "minLength": 1}
    parameters = [{"name": name, "in": "path", "required": True, "schema": text} for name in path]
    parameters += [{"name": name, "in": "query", "schema": dict(schema)} for name, schema in (query or {}).items()]
    return found | ({"parameters": parameters} if parameters else {})


def _body(media: str, schema: Mapping[str, Any]) -> dict[str, Any]:
    return {"required": True, "content": {media: {"schema": schema}}}
