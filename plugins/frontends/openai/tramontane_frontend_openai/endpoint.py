# SPDX-License-Identifier: Apache-2.0
"""What every route shares: bodies in, JSON or events out, errors in the envelope."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from typing import Any

import orjson
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route

from tramontane.api.results import CompletionDelta, Usage
from tramontane.errors import TramontaneError
from tramontane.wire import EventStream, decode, frame, while_connected
from tramontane.wire.events import DONE
from tramontane_frontend_openai.errors import envelope, respond

Handler = Callable[[Request], Awaitable[Any]]


def route(path: str, handler: Handler, method: str = "POST") -> Route:
    """A route whose typed errors become answers. A client that leaves before its answer begins ends the work for it."""

    async def endpoint(request: Request) -> Any:
        try:
            await request.body()
            made = await while_connected(request.receive, handler(request))
            return Response(status_code=499) if made is None else made
        except TramontaneError as error:
            return respond(error)
        except ClientDisconnect:
            return Response(status_code=499)

    return Route(path, endpoint, methods=[method])


async def body(request: Request) -> Any:
    """The JSON that a request carries."""
    return decode(await request.body())


def answer(content: Any, status: int = 200) -> Response:
    """An object as JSON."""
    return Response(orjson.dumps(content), status, media_type="application/json")


def stream(
    deltas: AsyncGenerator[CompletionDelta],
    chunk: Callable[[CompletionDelta], Any],
    last: Callable[[Sequence[Usage]], Any] | None,
    prompts: int = 1,
) -> EventStream:
    """Chunks as events, ended by ``[DONE]``.

    Args:
        deltas: What the model says; its first delta is there.
        chunk: A delta as a chunk.
        last: The chunk of usage, if one is wanted.
        prompts: How many answers end in it; the last one's end and what follows it are written as one.
    """

    async def frames() -> AsyncGenerator[bytes]:
        used: list[Usage] = []
        ending = b""
        try:
            async for delta in deltas:
                made = chunk(delta)
                shown = b"" if made is None else frame(orjson.dumps(made))
                if delta.usage is not None:
                    used.append(delta.usage)
                if len(used) == prompts:
                    ending += shown
                elif shown:
                    yield shown
            if last is not None:
                ending += frame(orjson.dumps(last(used)))
        except TramontaneError as error:
            ending += frame(orjson.dumps(envelope(error)))
        finally:
            await deltas.aclose()  # a client that left frees its blocks
        yield ending + DONE

    return EventStream(frames())
