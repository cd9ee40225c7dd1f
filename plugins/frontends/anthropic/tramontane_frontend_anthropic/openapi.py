# SPDX-License-Identifier: Apache-2.0
"""The API's part of ``/openapi.json``."""

from __future__ import annotations

from typing import Any

from tramontane.wire.openapi import operation
from tramontane_frontend_anthropic.requests import MessagesRequest, Prompt


def describe() -> dict[str, Any]:
    """Paths and their operations."""
    return {
        "paths": {
            "/v1/messages": {"post": operation("Answer a conversation.", body=MessagesRequest, streams=True)},
            "/v1/messages/count_tokens": {"post": operation("Count a conversation's tokens.", body=Prompt)},
        }
    }
