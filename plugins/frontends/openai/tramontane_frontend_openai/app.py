# SPDX-License-Identifier: Apache-2.0
"""The routes of the API."""

from __future__ import annotations

import os
from functools import partial
from pathlib import Path
from typing import Any

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response

from tramontane.errors import ConfigError
from tramontane.host import Host
from tramontane.wire import FieldError
from tramontane.wire.models import model_object
from tramontane_frontend_openai.endpoint import answer, route
from tramontane_frontend_openai.errors import respond
from tramontane_frontend_openai.files import Files
from tramontane_frontend_openai.generating import Generating
from tramontane_frontend_openai.responses import Responses
from tramontane_frontend_openai.store import Store

TTL_VARIABLE = "TRAMONTANE_RESPONSE_TTL"
"""Seconds for which responses are kept."""


def make_app(host: Host, store: Store | None = None) -> Starlette:
    """The API over a host's models.

    Args:
        host: The models.
        store: Where responses and files are kept; by default in the host's folder for such things.
    """
    kept = store if store is not None else open_store(host.state_dir)
    files = Files(kept)
    generating, responses = Generating(host, files), Responses(host, kept, files)

    return Starlette(
        routes=[
            route("/chat/completions", generating.chat),
            route("/completions", generating.completions),
            route("/embeddings", generating.embeddings),
            route("/tokenize", generating.tokenize),
            route("/detokenize", generating.detokenize),
            route("/models", partial(_models, host), "GET"),
            route("/models/{name:path}", partial(_model, host), "GET"),
            route("/responses", responses.create),
            route("/responses/input_tokens", responses.count),
            route("/responses/{id}", responses.retrieve, "GET"),
            route("/responses/{id}", responses.delete, "DELETE"),
            route("/responses/{id}/cancel", responses.cancel),
            route("/responses/{id}/input_items", responses.input_items, "GET"),
            route("/files", files.create),
            route("/files", files.list, "GET"),
            route("/files/{id}", files.retrieve, "GET"),
            route("/files/{id}", files.delete, "DELETE"),
            route("/files/{id}/content", files.content, "GET"),
        ],
        exception_handlers={404: _nothing_there, 405: _nothing_there},
    )


def open_store(folder: Path | None) -> Store:
    """The store in a folder, or in memory.

    Raises:
        ConfigError: It cannot be opened, or the environment states no usable time.
    """
    given = os.environ.get(TTL_VARIABLE, "")
    try:
        options = {"ttl_s": float(given)} if given else {}
    except ValueError:
        raise ConfigError(f"{TTL_VARIABLE} must be a number of seconds, got {given!r}") from None
    return Store(None if folder is None else folder / "openai.sqlite3", **options)


async def _models(host: Host, request: Request) -> Any:
    cards = [model_object(card) for card in host.models()]
    ends = {"first_id": cards[0]["id"], "last_id": cards[-1]["id"]} if cards else {"first_id": None, "last_id": None}
    return answer({"object": "list", "data": cards, "has_more": False, **ends})


async def _model(host: Host, request: Request) -> Any:
    return answer(model_object(host.model(request.path_params["name"])))


async def _nothing_there(request: Request, error: Exception) -> Response:
    status = getattr(error, "status_code", 404)
    return respond(FieldError(f"{request.method} {request.url.path} is not part of this API", status=status))
