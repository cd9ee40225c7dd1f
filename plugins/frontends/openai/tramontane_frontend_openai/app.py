# SPDX-License-Identifier: Apache-2.0
"""The routes of the API."""

from __future__ import annotations

import base64
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import Any

import numpy as np
import orjson
from starlette.applications import Starlette
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route

from tramontane.api import AsyncLLM
from tramontane.api.results import CompletionDelta, Usage
from tramontane.errors import TramontaneError
from tramontane.host import Host, ModelCard
from tramontane_frontend_openai.answers import ChatShape, TextShape
from tramontane_frontend_openai.errors import ApiError, envelope, respond
from tramontane_frontend_openai.requests import (
    ChatRequest,
    CompletionRequest,
    DetokenizeRequest,
    EmbeddingRequest,
    Sampling,
    TokenizeRequest,
    read,
)

MAX_DEPTH = 64
"""Nesting of a body; deeper ones are refused before anything walks them."""

TINY = 1e-12
"""Keeps the length of a zero vector above zero."""

Handler = Callable[[Host, Any], Awaitable[Response]]


def make_app(host: Host) -> Starlette:
    """The API over a host's models."""

    def post(path: str, handler: Handler) -> Route:
        async def endpoint(request: Request) -> Response:
            try:
                return await handler(host, await _body(request))
            except TramontaneError as error:
                return respond(error)
            except ClientDisconnect:
                return Response(status_code=499)

        return Route(path, endpoint, methods=["POST"])

    async def models(request: Request) -> Response:
        return _json({"object": "list", "data": [_card(card) for card in host.models()]})

    async def model(request: Request) -> Response:
        name = request.path_params["name"]
        for card in host.models():
            if name in (card.name, *card.aliases):
                return _json(_card(card))
        return respond(ApiError(f"there is no model {name!r}", status=404, code="model_not_found"))

    async def missing(request: Request, error: Exception) -> Response:
        status = getattr(error, "status_code", 404)
        return respond(ApiError(f"{request.method} {request.url.path} is not part of this API", status=status))

    return Starlette(
        routes=[
            post("/chat/completions", chat),
            post("/completions", completions),
            post("/embeddings", embeddings),
            post("/tokenize", tokenize),
            post("/detokenize", detokenize),
            Route("/models", models),
            Route("/models/{name:path}", model),
        ],
        exception_handlers={404: missing, 405: missing},
    )


async def chat(host: Host, body: Any) -> Response:
    """``/chat/completions``."""
    asked = read(ChatRequest, body)
    llm = await host.acquire(asked.model)
    params = asked.sampling(llm.default_params)
    shape = ChatShape(model=llm.name, spell=llm.token_bytes, wants_logprobs=asked.logprobs)
    stream = llm.chat(list(asked.messages), params, **asked.template())
    if asked.stream:
        return await _stream(stream, shape.chunk, shape.last, asked)
    return _json(shape.whole(await stream))


async def completions(host: Host, body: Any) -> Response:
    """``/completions``."""
    asked = read(CompletionRequest, body)
    llm = await host.acquire(asked.model)
    params = asked.sampling(llm.default_params)
    prompts = _prompts(asked.prompt, "prompt")
    echoes = [_text_of(llm, prompt) for prompt in prompts] if asked.echo else None
    shape = TextShape(
        model=llm.name, spell=llm.token_bytes, n=asked.n or 1, echoes=echoes, wants_logprobs=asked.logprobs is not None
    )
    stream = llm.generate(prompts, params)
    if asked.stream:
        return await _stream(stream, shape.chunk, shape.last, asked)
    return _json(shape.whole(await stream))


async def embeddings(host: Host, body: Any) -> Response:
    """``/embeddings``: the last token's final hidden state, scaled to length one."""
    asked = read(EmbeddingRequest, body)
    if asked.dimensions is not None:
        raise ApiError("dimensions is not supported: vectors have the model's own width", param="dimensions")
    if asked.encoding_format not in ("float", "base64"):
        raise ApiError("encoding_format must be float or base64", param="encoding_format")
    llm = await host.acquire(asked.model)
    prompts = _prompts(asked.input, "input")
    vectors = await llm.embed(prompts)
    counts = [len(llm.tokenize(p)) if isinstance(p, str) else len(p) for p in prompts]
    data = [
        {"object": "embedding", "index": place, "embedding": _vector(vector, asked.encoding_format)}
        for place, vector in enumerate(vectors)
    ]
    used = {"prompt_tokens": sum(counts), "total_tokens": sum(counts)}
    return _json({"object": "list", "data": data, "model": llm.name, "usage": used})


async def tokenize(host: Host, body: Any) -> Response:
    """``/tokenize``."""
    asked = read(TokenizeRequest, body)
    llm = await host.acquire(asked.model)
    ids = llm.tokenize(asked.prompt, add_special=asked.add_special_tokens)
    return _json({"tokens": ids, "count": len(ids), "max_model_len": llm.max_model_len})


async def detokenize(host: Host, body: Any) -> Response:
    """``/detokenize``."""
    asked = read(DetokenizeRequest, body)
    llm = await host.acquire(asked.model)
    return _json({"prompt": llm.detokenize(asked.tokens)})


async def _stream(
    stream: Any, chunk: Callable[[CompletionDelta], Any], last: Callable[[Sequence[Usage]], Any], asked: Sampling
) -> Response:
    """Server-sent events. The first delta is awaited here, so that a refused request is a plain error answer."""
    deltas = aiter(stream)
    try:
        first = await anext(deltas)
    except StopAsyncIteration:
        first = None
    wants_usage = asked.stream_options is not None and asked.stream_options.include_usage

    async def events() -> AsyncIterator[bytes]:
        used: list[Usage] = []
        delta = first
        try:
            while delta is not None:
                yield _event(chunk(delta))
                if delta.usage is not None:
                    used.append(delta.usage)
                delta = await anext(deltas, None)
            if wants_usage:
                yield _event(last(used))
        except TramontaneError as error:
            yield _event(envelope(error))
        finally:
            await stream.aclose()  # a client that left frees its blocks
        yield b"data: [DONE]\n\n"

    return StreamingResponse(events(), media_type="text/event-stream", headers={"Cache-Control": "no-cache"})


def _event(content: Any) -> bytes:
    return b"data: " + orjson.dumps(content) + b"\n\n"


def _json(content: Any) -> Response:
    return Response(orjson.dumps(content), media_type="application/json")


async def _body(request: Request) -> Any:
    raw = await request.body()
    try:
        found = orjson.loads(raw)
    except orjson.JSONDecodeError as error:
        raise ApiError(f"the body is not valid JSON: {error.msg}") from None
    if _depth(found) > MAX_DEPTH:
        raise ApiError(f"the body is nested more than {MAX_DEPTH} levels deep")
    return found


def _depth(value: Any) -> int:
    level, current = 0, [value]
    while current and level <= MAX_DEPTH:
        level += 1
        deeper: list[Any] = []
        for one in current:
            if isinstance(one, dict):
                deeper += one.values()
            elif isinstance(one, list):
                deeper += one
        current = [one for one in deeper if isinstance(one, dict | list)]
    return level + bool(current)


def _prompts(given: Any, param: str) -> list[Any]:
    """One prompt or several, as a list."""
    listed = [given] if isinstance(given, str) or (given and isinstance(given[0], int)) else list(given)
    if not listed:
        raise ApiError(f"{param} is empty", param=param)
    return listed


def _text_of(llm: AsyncLLM, prompt: Any) -> str:
    return prompt if isinstance(prompt, str) else llm.detokenize(prompt)


def _vector(vector: Any, encoding: str) -> Any:
    wide = np.asarray(vector, dtype=np.float64)
    narrow = (wide / max(float(np.linalg.norm(wide)), TINY)).astype(np.float32)
    return base64.b64encode(narrow.tobytes()).decode() if encoding == "base64" else narrow.tolist()


def _card(card: ModelCard) -> dict[str, Any]:
    return {
        "id": card.name, "object": "model", "created": int(card.created), "owned_by": "tramontane",
        "status": card.state.value, "max_model_len": card.max_model_len, "aliases": list(card.aliases),
    }  # fmt: skip
