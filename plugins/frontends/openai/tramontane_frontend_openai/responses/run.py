# SPDX-License-Identifier: Apache-2.0
"""Making one response: from its conversation to its last event, which is sent when the response is stored."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncGenerator, Sequence
from typing import Any

from attrs import define, field

from tramontane.api import AsyncCompletionStream, AsyncLLM
from tramontane.api.results import Completion, CompletionDelta
from tramontane.errors import PromptTooLongError, TramontaneError
from tramontane.requests import FinishReason, SamplingParams
from tramontane.wire import opened, public_message, status_of
from tramontane_frontend_openai.messages import FileText
from tramontane_frontend_openai.responses.events import Composer, Event
from tramontane_frontend_openai.responses.items import messages
from tramontane_frontend_openai.responses.request import ResponsesRequest
from tramontane_frontend_openai.store import Store, StoredResponse

_log = logging.getLogger(__name__)


@define(eq=False, kw_only=True)
class Run:
    """One response in the making."""

    asked: ResponsesRequest
    llm: AsyncLLM
    params: SamplingParams
    store: Store
    tenant: bytes
    file_text: FileText
    earlier: Sequence[dict[str, Any]]
    """Items of the responses before it."""
    given: list[dict[str, Any]]
    """Items of the request."""
    resource: dict[str, Any]
    _deltas: AsyncGenerator[CompletionDelta] | None = field(default=None, init=False)

    async def open(self) -> None:
        """Hand the conversation to the model and wait for the first token.

        Raises:
            TramontaneError: The request is refused.
        """
        items = [*self.earlier, *self.given]
        while True:
            # ``truncation: auto`` forgets the oldest items; the last one is what is to be answered.
            shortens = self.asked.truncation == "auto" and len(items) > 1
            stream = self._start(items)
            try:
                deltas = await opened(stream)
            except PromptTooLongError:
                if not shortens:
                    raise
            else:
                if not shortens or self._has_room(stream):
                    self._deltas = deltas
                    return
                await deltas.aclose()
            items = items[max(1, len(items) // 8) :]

    def _has_room(self, stream: AsyncCompletionStream) -> bool:
        """Whether the answer can be as long as was asked, or half the context where that is less."""
        most = self.llm.max_model_len
        wanted = min(self.params.max_tokens or 1, most // 2)
        return sum(stream.prompt_tokens) + wanted <= most

    def _start(self, items: Sequence[dict[str, Any]]) -> AsyncCompletionStream:
        conversation = messages(self.asked.instructions, items, self.file_text)
        options = self.asked.settings(self.tenant)
        return self.llm.chat(conversation, self.params, options=options, **self.asked.call())

    async def events(self) -> AsyncGenerator[Event]:
        """What happens, the last event once the response is stored. Leaving it early cancels the response."""
        composer = Composer(self.resource, self.llm.token_bytes, self.asked.wants_logprobs)
        log: list[Event] | None = [] if self.resource["background"] else None
        ended = False
        try:
            async for event in self._made(composer):
                if log is not None:
                    log.append(event)
                if event["type"] in TERMINAL:
                    ended = True
                    await self.save(log)
                yield event
        finally:
            if self._deltas is not None:
                await self._deltas.aclose()
            if not ended:
                self._cancel(composer, log)
                await asyncio.shield(self.save(log))

    async def _made(self, composer: Composer) -> AsyncGenerator[Event]:
        resource = self.resource
        yield composer.state("response.created")
        if resource["background"]:
            yield composer.state("response.queued")
        resource["status"] = "in_progress"
        done: Completion | None = None
        try:
            if self._deltas is None:
                await self.open()
            yield composer.state("response.in_progress")
            async for delta in self._deltas or _nothing():
                for event in composer.feed(delta):
                    yield event
                done = delta.completion or done
        except TramontaneError as error:
            for event in composer.close("incomplete"):
                yield event
            resource["status"], resource["error"] = "failed", _fault(error)
            yield composer.state("response.failed")
            return
        cut = done is not None and done.finish_reason is FinishReason.LENGTH
        for event in composer.close("incomplete" if cut else "completed"):
            yield event
        _finish(resource, done, cut, composer.reasoning_tokens)
        yield composer.state("response.incomplete" if cut else "response.completed")

    def _cancel(self, composer: Composer, log: list[Event] | None) -> None:
        closing = [*composer.close("incomplete")]
        self.resource["status"] = "cancelled"
        if log is not None:
            log += closing

    async def save(self, log: list[Event] | None = None) -> None:
        """Write the response as it is now, unless nothing is to be kept."""
        if self.resource["store"]:
            stored = StoredResponse(body=self.resource, input=self.given, events=log)
            await asyncio.to_thread(self.store.put_response, self.tenant, stored)


TERMINAL = frozenset({"response.completed", "response.incomplete", "response.failed"})


@define(eq=False)
class Job:
    """A response that is made in the background. Any number of clients may follow it, from any event on."""

    run: Run
    log: list[Event] = field(factory=list)
    task: asyncio.Task[None] | None = field(default=None, init=False)
    _changed: asyncio.Event = field(factory=asyncio.Event, init=False)
    _ended: bool = field(default=False, init=False)

    def start(self) -> None:
        """Begin, in the running event loop."""
        self.task = asyncio.get_running_loop().create_task(self._work())

    async def cancel(self) -> None:
        """End it; what was made so far is kept."""
        if self.task is not None:
            self.task.cancel()
            await asyncio.gather(self.task, return_exceptions=True)

    async def follow(self, after: int = -1) -> AsyncGenerator[Event]:
        """Its events with numbers above ``after``, those to come included."""
        place = max(0, after + 1)
        while True:
            while place < len(self.log):
                yield self.log[place]
                place += 1
            if self._ended:
                return
            await self._changed.wait()

    async def _work(self) -> None:
        events = self.run.events()
        try:
            async for event in events:
                self.log.append(event)
                self._tell()
        except Exception:
            _log.exception("a response in the background failed")
        finally:
            await events.aclose()
            self._ended = True
            self._tell()

    def _tell(self) -> None:
        told, self._changed = self._changed, asyncio.Event()
        told.set()


async def _nothing() -> AsyncGenerator[CompletionDelta]:
    return
    yield  # an async generator that gives nothing


def _fault(error: TramontaneError) -> dict[str, str]:
    code = "server_error" if status_of(error) >= 500 else error.code
    return {"code": code, "message": public_message(error)}


def _finish(resource: dict[str, Any], done: Completion | None, cut: bool, reasoning: int) -> None:
    resource["status"] = "incomplete" if cut else "completed"
    resource["completed_at"] = None if cut else int(time.time())
    resource["incomplete_details"] = {"reason": "max_output_tokens"} if cut else None
    if done is not None:
        used = done.usage
        resource["usage"] = {
            "input_tokens": used.prompt_tokens,
            "input_tokens_details": {"cached_tokens": used.cached_tokens, "cache_write_tokens": 0},
            "output_tokens": used.completion_tokens,
            "output_tokens_details": {"reasoning_tokens": reasoning},
            "total_tokens": used.prompt_tokens + used.completion_tokens,
        }
