# SPDX-License-Identifier: Apache-2.0
"""The routes of ``/responses``."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncGenerator, Sequence
from functools import partial
from typing import Any

import orjson
from attrs import define, field
from starlette.requests import Request

from tramontane.host import Host
from tramontane.wire import EventStream, FieldError, frame, read
from tramontane.wire.events import DONE
from tramontane.wire.scope import tenant
from tramontane_frontend_openai.endpoint import answer, body
from tramontane_frontend_openai.errors import missing
from tramontane_frontend_openai.files import Files
from tramontane_frontend_openai.messages import FileText
from tramontane_frontend_openai.pages import Page, page
from tramontane_frontend_openai.responses.events import Event
from tramontane_frontend_openai.responses.items import input_items, messages
from tramontane_frontend_openai.responses.request import ResponsesRequest
from tramontane_frontend_openai.responses.run import Job, Run
from tramontane_frontend_openai.store import Store, StoredResponse

MOST_ITEMS = 100
"""Input items on a page."""
MOST_BEFORE = 1000
"""Responses that one may build on."""
_ORPHAN = {"code": "server_error", "message": "the server ended before the response was made"}


@define(eq=False)
class Responses:
    """Handlers over a host's models and a store."""

    host: Host
    store: Store
    files: Files
    _jobs: dict[str, Job] = field(factory=dict, init=False)

    def __attrs_post_init__(self) -> None:
        self.store.fail_orphans(_ORPHAN)

    async def create(self, request: Request) -> Any:
        """``POST /responses``."""
        run = await self._run(request)
        if run.asked.background:
            return await self._in_background(run)
        await run.open()
        if run.asked.stream:
            return _stream(run.events())
        async for _ in run.events():
            pass
        return answer(run.resource)

    async def count(self, request: Request) -> Any:
        """``POST /responses/input_tokens``."""
        run = await self._run(request)
        conversation = messages(run.asked.instructions, [*run.earlier, *run.given], run.file_text)
        call = run.asked.call()
        options = {name: call[name] for name in call.keys() - {"tool_choice", "response_format", "parallel_tool_calls"}}
        ids = await asyncio.to_thread(run.llm.render_chat, conversation, **options)
        return answer({"object": "response.input_tokens", "input_tokens": len(ids)})

    async def retrieve(self, request: Request) -> Any:
        """``GET /responses/{id}``, or its events with ``?stream=true&starting_after=``."""
        response_id, query = request.path_params["id"], request.query_params
        job = self._job(request)
        if query.get("stream") != "true":
            return answer(job.run.resource if job is not None else (await self._stored(request)).body)
        after = query.get("starting_after", "-1")
        if not after.removeprefix("-").isdecimal() or len(after) > 9:
            raise FieldError("starting_after must be the number of an event", param="starting_after")
        if job is not None:
            return _stream(job.follow(int(after)))
        stored = await self._stored(request)
        if stored.events is None:
            raise FieldError(f"{response_id} was not made in the background, so its events are gone", param="stream")
        return _stream(_replay(stored.events, int(after)))

    async def delete(self, request: Request) -> Any:
        """``DELETE /responses/{id}``."""
        response_id = request.path_params["id"]
        job = self._job(request)
        if job is not None:
            await job.cancel()
        if not await asyncio.to_thread(self.store.delete_response, tenant(request), response_id):
            raise missing("response", response_id)
        return answer({"id": response_id, "object": "response", "deleted": True})

    async def cancel(self, request: Request) -> Any:
        """``POST /responses/{id}/cancel``: only what is made in the background outlives its client's patience."""
        job = self._job(request)
        if job is not None:
            await job.cancel()
            return answer(job.run.resource)
        stored = await self._stored(request)
        if not stored.body["background"]:
            raise FieldError("only responses in the background can be cancelled", param="response_id")
        return answer(stored.body)

    async def input_items(self, request: Request) -> Any:
        """``GET /responses/{id}/input_items``."""
        asked = Page.of(request.query_params, most=MOST_ITEMS, usual=20, descending=True)
        return answer(page((await self._stored(request)).input, asked))

    # --- inside -------------------------------------------------------------------------------------------------------

    async def _run(self, request: Request) -> Run:
        asked = read(ResponsesRequest, await body(request))
        asked.check()
        owner = tenant(request)
        llm = await self.host.acquire(asked.model)
        given, earlier = await asyncio.to_thread(self._context, owner, asked)
        file_text: FileText = partial(self.files.text, owner)
        params = asked.sampling(llm.default_params)
        return Run(
            asked=asked, llm=llm, params=params, store=self.store, tenant=owner, file_text=file_text, earlier=earlier,
            given=given, resource=asked.resource(llm.name, params),
        )  # fmt: skip

    def _context(self, owner: bytes, asked: ResponsesRequest) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
        """The items of the request, and those of the responses before it."""
        given = input_items(asked.input, partial(self.store.item, owner))
        chain: list[StoredResponse] = []
        previous = asked.previous_response_id
        while previous is not None:
            stored = self.store.response(owner, previous)
            if stored is None:
                raise FieldError(
                    f"there is no response {previous!r}", param="previous_response_id", status=404,
                    wire_code="previous_response_not_found",
                )  # fmt: skip
            if stored.body["status"] in ("queued", "in_progress"):
                raise FieldError(f"{previous} has not ended yet", param="previous_response_id")
            if len(chain) == MOST_BEFORE:
                raise FieldError(f"more than {MOST_BEFORE} responses before this one", param="previous_response_id")
            chain.append(stored)
            previous = stored.body["previous_response_id"]
        earlier = itertools.chain.from_iterable((*one.input, *one.body["output"]) for one in reversed(chain))
        return given, list(earlier)

    async def _in_background(self, run: Run) -> Any:
        job = Job(run)
        await run.save()
        response_id = run.resource["id"]
        self._jobs[response_id] = job
        shown = answer(run.resource)
        job.start()
        if job.task is not None:
            job.task.add_done_callback(lambda _: self._jobs.pop(response_id, None))
        return _stream(job.follow()) if run.asked.stream else shown

    def _job(self, request: Request) -> Job | None:
        job = self._jobs.get(request.path_params["id"])
        return job if job is not None and job.run.tenant == tenant(request) else None

    async def _stored(self, request: Request) -> StoredResponse:
        response_id = request.path_params["id"]
        found = await asyncio.to_thread(self.store.response, tenant(request), response_id)
        if found is None:
            raise missing("response", response_id)
        return found


async def _replay(events: Sequence[Event], after: int) -> AsyncGenerator[Event]:
    for event in events:
        if event["sequence_number"] > after:
            yield event


def _stream(events: AsyncGenerator[Event]) -> EventStream:
    async def frames() -> AsyncGenerator[bytes]:
        try:
            async for event in events:
                yield frame(orjson.dumps(event), event["type"])
        finally:
            await events.aclose()
        yield DONE

    return EventStream(frames())
