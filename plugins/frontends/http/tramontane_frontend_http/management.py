# SPDX-License-Identifier: Apache-2.0
"""What an operator does with a running server: load, unload, reload and requantize its models, list its plugins.

The routes stand behind the gate like all others, so they need the key where there is one, and an admin's where there
are admins. They name models that the
server was configured with and never a path or a repository: whoever may ask a model may not make the server read files.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any

from attrs import frozen
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route

from tramontane.api import AsyncLLM
from tramontane.errors import TramontaneError, UnknownNameError
from tramontane.host import Host
from tramontane.wire import FieldError, decode, public_message, read, status_of
from tramontane.wire.models import model_object
from tramontane.wire.openapi import operation
from tramontane.wire.scope import may_administer
from tramontane_frontend_http import adapters
from tramontane_frontend_http.answers import JsonResponse, not_for_users, refusal

Handler = Callable[[Host, Request], Awaitable[Any]]


@frozen(kw_only=True)
class ModelRequest:
    """Names a model, by its name or an alias; ``model_id`` is mistral.rs's word for it."""

    model: str | None = None
    model_id: str | None = None

    @property
    def name(self) -> str:
        """The name that was given.

        Raises:
            FieldError: None was, or two.
        """
        given = [name for name in (self.model, self.model_id) if name is not None]
        if len(given) != 1:
            raise FieldError("name the model" if not given else "give either model or model_id", param="model")
        return given[0]


@frozen(kw_only=True)
class RequantizeRequest(ModelRequest):
    """``POST /v1/models/requantize``."""

    quant: str | None
    """A type, or a number of bits; null is what the checkpoint holds."""
    from_memory: bool = False


@frozen(kw_only=True)
class ReIsqRequest:
    """``POST /re_isq``, as mistral.rs has it."""

    ggml_type: str
    model: str = "default"


def routes(host: Host, adapter_folders: Sequence[Path] = ()) -> list[Route]:
    """Every route of this module, and those of adapters that lie in these folders."""
    adapted = adapters.AdapterRoutes(adapter_folders)
    return [
        _route(adapters.LOAD, adapted.load, host),
        _route(adapters.UNLOAD, adapted.unload, host),
        _route("/v1/models/load", _load, host),
        _route("/v1/models/unload", _unload, host),
        _route("/v1/models/reload", _reload, host),
        _route("/v1/models/status", _status, host, admin=False),
        _route("/v1/models/requantize", _requantize, host),
        _route("/re_isq", _re_isq, host),
        _route("/plugins", _plugins, host, "GET"),
    ]


def paths() -> dict[str, Any]:
    """The same for ``/openapi.json``."""
    return {
        "/v1/models/load": {"post": operation("Load a configured model.", body=ModelRequest)},
        "/v1/models/unload": {"post": operation("Free a model's memory; it stays configured.", body=ModelRequest)},
        "/v1/models/reload": {"post": operation("Unload a model and load it again.", body=ModelRequest)},
        "/v1/models/status": {"post": operation("How far a model is.", body=ModelRequest)},
        "/v1/models/requantize": {
            "post": operation("Bring a running model's weights into another type.", body=RequantizeRequest)
        },
        "/re_isq": {"post": operation("The same, as mistral.rs spells it.", body=ReIsqRequest)},
        "/plugins": {"get": operation("The installed plugins and what became of each.")},
        **adapters.paths(),
    }


async def _load(host: Host, request: Request) -> Any:
    name = (await _read(ModelRequest, request)).name
    await host.acquire(name)
    return model_object(host.model(name))


async def _unload(host: Host, request: Request) -> Any:
    name = (await _read(ModelRequest, request)).name
    await host.unload(name)
    return model_object(host.model(name))


async def _reload(host: Host, request: Request) -> Any:
    name = (await _read(ModelRequest, request)).name
    await host.unload(name)
    await host.acquire(name)
    return model_object(host.model(name))


async def _status(host: Host, request: Request) -> Any:
    return model_object(host.model((await _read(ModelRequest, request)).name))


async def _requantize(host: Host, request: Request) -> Any:
    asked = await _read(RequantizeRequest, request)
    running = await host.acquire(asked.name)
    await _exchange(running, asked.quant, "quant", from_memory=asked.from_memory)
    return model_object(host.model(asked.name)) | {"quant": asked.quant}


async def _re_isq(host: Host, request: Request) -> Any:
    asked = await _read(ReIsqRequest, request)
    await _exchange(await host.acquire(asked.model), asked.ggml_type.lower(), "ggml_type")
    return f"Re ISQ: {asked.ggml_type!r}"


async def _exchange(running: AsyncLLM, quant: str | None, field: str, *, from_memory: bool = False) -> None:
    """Requantize; a type that does not exist is the field's fault and not that of a path."""
    try:
        await running.requantize(quant, from_memory=from_memory)
    except UnknownNameError as error:
        raise FieldError(public_message(error), param=field) from None


async def _plugins(host: Host, request: Request) -> Any:
    return host.plugins.as_json()


async def _read(kind: type[Any], request: Request) -> Any:
    return read(kind, decode(await request.body()))


def _route(path: str, handler: Handler, host: Host, method: str = "POST", *, admin: bool = True) -> Route:
    """A route whose typed errors become answers. What it began is ended even if the client leaves meanwhile."""

    async def endpoint(request: Request) -> Response:
        if admin and not may_administer(request.scope):
            return not_for_users(request.scope)
        try:
            return JsonResponse(await handler(host, request))
        except ClientDisconnect:
            return Response(status_code=499)
        except TramontaneError as error:
            found = status_of(error), error.code, public_message(error)
            return refusal(request.scope, *found, param=getattr(error, "param", None))

    return Route(path, endpoint, methods=[method])
