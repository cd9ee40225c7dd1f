# SPDX-License-Identifier: Apache-2.0
"""The API's part of ``/openapi.json``."""

from __future__ import annotations

from typing import Any

from tramontane.wire.openapi import operation
from tramontane_frontend_openai import requests as r
from tramontane_frontend_openai.files import MOST_LISTED
from tramontane_frontend_openai.responses.handlers import MOST_ITEMS
from tramontane_frontend_openai.responses.request import ResponsesRequest

_FOLLOW: dict[str, dict[str, Any]] = {
    "stream": {"type": "boolean"},
    "starting_after": {"type": "integer", "minimum": -1, "maximum": 99_999_999},
}
_UPLOAD = {
    "type": "object",
    "required": ["file", "purpose"],
    "properties": {"file": {"type": "string", "format": "binary"}, "purpose": {"type": "string", "minLength": 1}},
}


def describe() -> dict[str, Any]:
    """Paths and their operations."""
    one = ("id",)
    tokenize = {"post": operation("Turn a text into token ids.", body=r.TokenizeRequest)}
    detokenize = {"post": operation("Turn token ids into a text.", body=r.DetokenizeRequest)}
    return {
        "paths": {
            "/v1/chat/completions": {"post": operation("Answer a conversation.", body=r.ChatRequest, streams=True)},
            "/v1/completions": {"post": operation("Complete texts.", body=r.CompletionRequest, streams=True)},
            "/v1/embeddings": {"post": operation("Turn texts into vectors.", body=r.EmbeddingRequest)},
            "/v1/tokenize": tokenize,
            "/tokenize": tokenize,
            "/v1/detokenize": detokenize,
            "/detokenize": detokenize,
            "/v1/models": {"get": operation("List the models.")},
            "/v1/models/{name}": {"get": operation("One model.", path=("name",))},
            "/v1/responses": {"post": operation("Make a response.", body=ResponsesRequest, streams=True)},
            "/v1/responses/input_tokens": {"post": operation("Count a response's input.", body=ResponsesRequest)},
            "/v1/responses/{id}": {
                "get": operation("A stored response, or its events.", path=one, query=_FOLLOW, streams=True),
                "delete": operation("Forget a response.", path=one),
            },
            "/v1/responses/{id}/cancel": {"post": operation("End a response in the background.", path=one)},
            "/v1/responses/{id}/input_items": {
                "get": operation("What a response answers.", path=one, query=_page(MOST_ITEMS))
            },
            "/v1/files": {
                "get": operation("List the files.", query=_page(MOST_LISTED) | {"purpose": {"type": "string"}}),
                "post": operation("Upload a file.", form=_UPLOAD),
            },
            "/v1/files/{id}": {
                "get": operation("One file.", path=one),
                "delete": operation("Delete a file.", path=one),
            },
            "/v1/files/{id}/content": {
                "get": operation("What is in a file.", path=one, answers="application/octet-stream")
            },
        }
    }


def _page(most: int) -> dict[str, dict[str, Any]]:
    """The query of a list by pages."""
    return {
        "limit": {"type": "integer", "minimum": 1, "maximum": most},
        "order": {"enum": ["asc", "desc"]},
        "after": {"type": "string"},
    }
