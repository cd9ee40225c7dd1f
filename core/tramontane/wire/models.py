# SPDX-License-Identifier: Apache-2.0
"""What web frontends tell of a model: OpenAI's object, beside it what Anthropic's clients read, and our own."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from tramontane.host import ModelCard


def model_object(card: ModelCard) -> dict[str, Any]:
    """A model as ``/v1/models`` lists it.

    ``status`` is ``configured``, ``loading``, ``ready`` or ``failed``; ``max_model_len`` and ``chats`` are known once
    it is loaded, ``parent`` is the model that an adapter belongs to, ``error`` is there where loading failed.
    """
    found: dict[str, Any] = {
        "id": card.name, "object": "model", "created": int(card.created), "owned_by": "tramontane",
        "type": "model", "display_name": card.name, "lifecycle": "active", "max_input_tokens": card.max_model_len,
        "created_at": datetime.fromtimestamp(int(card.created), UTC).isoformat(), "status": card.state.value,
        "max_model_len": card.max_model_len, "chats": card.chats, "aliases": list(card.aliases),
        "parent": card.parent,
    }  # fmt: skip
    return found if card.error is None else found | {"error": card.error}
