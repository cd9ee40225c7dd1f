# SPDX-License-Identifier: Apache-2.0
"""``/chat/completions``, ``/completions``, ``/embeddings``, ``/tokenize``, ``/detokenize``."""

from __future__ import annotations

import asyncio
import base64
from functools import partial
from typing import Any

import numpy as np
from attrs import frozen
from starlette.requests import Request

from tramontane.api import AsyncCompletionStream, AsyncLLM
from tramontane.api.results import Completion
from tramontane.host import Host
from tramontane.wire import FieldError, identifier, opened, read
from tramontane.wire.scope import tenant
from tramontane_frontend_openai.answers import ChatShape, TextShape, UsageMeanwhile
from tramontane_frontend_openai.endpoint import answer, body, stream
from tramontane_frontend_openai.files import Files
from tramontane_frontend_openai.messages import chat_messages
from tramontane_frontend_openai.requests import (
    ChatRequest,
    CompletionRequest,
    DetokenizeRequest,
    EmbeddingRequest,
    Sampling,
    TokenizeRequest,
)

TINY = 1e-12
"""Keeps the length of a zero vector above zero."""


@frozen
class Generating:
    """Handlers over a host's models."""

    host: Host
    files: Files

    async def chat(self, request: Request) -> Any:
        """``/chat/completions``."""
        asked = read(ChatRequest, await body(request))
        messages = chat_messages(asked.messages, partial(self.files.text, tenant(request)))
        llm = await self.host.acquire(asked.model)
        params = asked.sampling(llm.default_params)
        shape = ChatShape(model=llm.name, spell=llm.token_bytes, wants_logprobs=bool(asked.logprobs))
        running = llm.chat(messages, params, options=asked.settings(tenant(request)), **asked.call())
        deltas = await opened(running)
        if asked.stream:
            shape.meanwhile = _meanwhile(asked, running)
            return stream(deltas, shape.chunk, shape.last if asked.wants_usage else None)
        done: Completion | None = None
        async for delta in deltas:
            shape.note(delta)
            done = delta.completion or done
        return answer(shape.whole(_ended(done)))

    async def completions(self, request: Request) -> Any:
        """``/completions``."""
        asked = read(CompletionRequest, await body(request))
        llm = await self.host.acquire(asked.model)
        params = asked.sampling(llm.default_params)
        prompts = _prompts(asked.prompt, "prompt")
        shape = TextShape(
            model=llm.name, spell=llm.token_bytes, n=asked.n or 1, wants_logprobs=asked.logprobs is not None,
            echoes=[_text_of(llm, prompt) for prompt in prompts] if asked.echo else None, scores_only=asked.scores_only,
        )  # fmt: skip
        running = llm.generate(prompts, params, **asked.settings(tenant(request)))
        if asked.stream:
            deltas = await opened(running)
            shape.meanwhile, shape.prompts = _meanwhile(asked, running), running.prompt_token_ids
            return stream(deltas, shape.chunk, shape.last if asked.wants_usage else None, len(prompts))
        return answer(shape.whole(await running))

    async def embeddings(self, request: Request) -> Any:
        """``/embeddings``: the last token's final hidden state, scaled to length one."""
        asked = read(EmbeddingRequest, await body(request))
        if asked.dimensions is not None:
            raise FieldError("dimensions is not supported: vectors have the model's own width", param="dimensions")
        if asked.encoding_format not in (None, "float", "base64"):
            raise FieldError("encoding_format must be float or base64", param="encoding_format")
        if asked.user:
            identifier(asked.user, "user")
        llm = await self.host.acquire(asked.model)
        prompts = _prompts(asked.input, "input")
        vectors = await llm.embed(prompts)
        counts = [len(llm.tokenize(p)) if isinstance(p, str) else len(p) for p in prompts]
        data = [
            {"object": "embedding", "index": place, "embedding": _vector(vector, asked.encoding_format)}
            for place, vector in enumerate(vectors)
        ]
        used = {"prompt_tokens": sum(counts), "total_tokens": sum(counts)}
        return answer({"object": "list", "data": data, "model": llm.name, "usage": used})

    async def tokenize(self, request: Request) -> Any:
        """``/tokenize``."""
        asked = read(TokenizeRequest, await body(request))
        if (asked.prompt is None) == (asked.messages is None):
            raise FieldError("give either prompt or messages", param="prompt")
        llm = await self.host.acquire(asked.model)
        if asked.messages is not None:
            messages = chat_messages(asked.messages, partial(self.files.text, tenant(request)))
            tools = list(asked.tools or ()) or None
            ids = await asyncio.to_thread(llm.render_chat, messages, tools=tools)
        else:
            ids = await asyncio.to_thread(llm.tokenize, asked.prompt or "", add_special=asked.add_special_tokens)
        return answer({"tokens": ids, "count": len(ids), "max_model_len": llm.max_model_len})

    async def detokenize(self, request: Request) -> Any:
        """``/detokenize``."""
        asked = read(DetokenizeRequest, await body(request))
        llm = await self.host.acquire(asked.model)
        outside = next((token for token in asked.tokens if not 0 <= token < llm.vocab_size), None)
        if outside is not None:
            raise FieldError(f"tokens holds {outside}; ids are 0 to {llm.vocab_size - 1}", param="tokens")
        return answer({"prompt": llm.detokenize(asked.tokens)})


def _meanwhile(asked: Sampling, running: AsyncCompletionStream) -> UsageMeanwhile | None:
    """What counts the tokens of a stream, if its chunks are to tell."""
    return UsageMeanwhile(sum(running.prompt_tokens)) if asked.wants_usage_meanwhile else None


def _ended(done: Completion | None) -> Completion:
    if done is None:
        raise RuntimeError("a stream ended without its last delta")
    return done


def _prompts(given: Any, param: str) -> list[Any]:
    """One prompt or several, as a list."""
    listed = [given] if isinstance(given, str) or (given and isinstance(given[0], int)) else list(given)
    if not listed:
        raise FieldError(f"{param} is empty", param=param)
    return listed


def _text_of(llm: AsyncLLM, prompt: Any) -> str:
    return prompt if isinstance(prompt, str) else llm.detokenize(prompt)


def _vector(vector: Any, encoding: str | None) -> Any:
    wide = np.asarray(vector, dtype=np.float64)
    narrow = (wide / max(float(np.linalg.norm(wide)), TINY)).astype(np.float32)
    return base64.b64encode(narrow.tobytes()).decode() if encoding == "base64" else narrow.tolist()
