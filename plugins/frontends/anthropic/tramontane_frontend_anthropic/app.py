# SPDX-License-Identifier: Apache-2.0
"""The routes of the API."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable
from typing import Any

import orjson
from attrs import frozen
from starlette.applications import Starlette
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route

from tramontane.errors import TramontaneError
from tramontane.host import Host
from tramontane.wire import EventStream, FieldError, decode, frame, opened, read, while_connected
from tramontane.wire.scope import request_id, tenant
from tramontane_frontend_anthropic.answers import Event, MessageShape
from tramontane_frontend_anthropic.errors import envelope, headers, respond
from tramontane_frontend_anthropic.messages import chat_messages, continues
from tramontane_frontend_anthropic.requests import MessagesRequest, Prompt

PING = frame(b'{"type":"ping"}', "ping")


def make_app(host: Host) -> Starlette:
    """The API over a host's models."""
    handlers = Messages(host)
    return Starlette(
        routes=[_route("/", handlers.create), _route("/count_tokens", handlers.count)],
        exception_handlers={404: _nothing_there, 405: _nothing_there},
    )


@frozen
class Messages:
    """Handlers over a host's models."""

    host: Host

    async def create(self, request: Request) -> Any:
        """``POST /v1/messages``."""
        asked = read(MessagesRequest, decode(await request.body()))
        messages = chat_messages(asked.system, asked.messages)
        llm = await self.host.acquire(asked.model)
        params = asked.sampling(llm.default_params)
        shape = MessageShape(model=llm.name, stop_sequences=asked.stop_sequences or (), detokenize=llm.detokenize)
        call = asked.call(bounded=llm.takes_thinking_budget)
        options = asked.settings(tenant(request))
        running = llm.chat(messages, params, options=options, **call, **_ending(messages))
        if not asked.stream:
            return _answer(shape.whole(await running), request)
        deltas = await opened(running)

        async def frames() -> AsyncGenerator[bytes]:
            try:
                yield _frames(shape.begin(sum(running.prompt_tokens)))
                async for delta in deltas:
                    if made := _frames(shape.feed(delta)):
                        yield made
            except TramontaneError as error:
                yield frame(orjson.dumps(envelope(error, request_id(request))), "error")
            finally:
                await deltas.aclose()  # a client that left frees its blocks

        extra = {name.encode(): value.encode() for name, value in headers(request_id(request)).items()}
        return EventStream(frames(), extra, pulse=PING)

    async def count(self, request: Request) -> Any:
        """``POST /v1/messages/count_tokens``."""
        asked = read(Prompt, decode(await request.body()))
        messages = chat_messages(asked.system, asked.messages)
        llm = await self.host.acquire(asked.model)
        ids = await asyncio.to_thread(llm.render_chat, messages, **asked.template(), **_ending(messages))
        return _answer({"input_tokens": len(ids)}, request)


def _ending(messages: list[dict[str, Any]]) -> dict[str, Any]:
    prefilled = continues(messages)
    return {"continue_final_message": prefilled, "add_generation_prompt": not prefilled}


def _frames(events: Iterable[Event]) -> bytes:
    return b"".join(frame(orjson.dumps(event), event["type"]) for event in events)


def _answer(content: Any, request: Request) -> Response:
    return Response(orjson.dumps(content), media_type="application/json", headers=headers(request_id(request)))


def _route(path: str, handler: Callable[[Request], Awaitable[Any]]) -> Route:
    """A route whose typed errors become answers. A client that leaves before its answer begins ends the work for it."""

    async def endpoint(request: Request) -> Any:
        try:
            await request.body()
            made = await while_connected(request.receive, handler(request))
            return Response(status_code=499) if made is None else made
        except TramontaneError as error:
            return respond(error, request_id(request))
        except ClientDisconnect:
            return Response(status_code=499)

    return Route(path, endpoint, methods=["POST"])


async def _nothing_there(request: Request, error: Exception) -> Response:
    status = getattr(error, "status_code", 404)
    fault = FieldError(f"{request.method} {request.url.path} is not part of this API", status=status)
    return respond(fault, request_id(request))
