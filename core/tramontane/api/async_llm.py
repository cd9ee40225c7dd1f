# SPDX-License-Identifier: Apache-2.0
"""``AsyncLLM``: the Python API for programs with an event loop. Hundreds of streams share one engine."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from numpy.typing import NDArray

from tramontane.api.chat_call import ChatCall, Message, ToolChoice
from tramontane.api.face import ModelFace
from tramontane.api.llm import LLM
from tramontane.api.prompts import is_brief, is_single
from tramontane.api.request_maker import Params
from tramontane.api.settings import with_adapter
from tramontane.api.streams import AsyncCompletionStream
from tramontane.requests import SamplingParams, Task

if TYPE_CHECKING:
    from typing import Unpack

    from tramontane.api.settings import ModelSettings, QuantSettings, RequestSettings
    from tramontane.progress import Progress


class AsyncLLM(ModelFace):
    """A model loaded into this process.

    >>> async for delta in AsyncLLM("demo").generate("Once upon a time"):
    ...     print(delta.text, end="")
    """

    @classmethod
    async def load(cls, model: str | os.PathLike[str], **settings: Unpack[ModelSettings]) -> Self:
        """Like ``AsyncLLM(...)``, beside the event loop: the loop goes on while the model is loaded."""
        return await asyncio.to_thread(lambda: cls(model, **settings))

    def generate(
        self, prompts: Any, params: Params = None, **options: Unpack[RequestSettings]
    ) -> AsyncCompletionStream:
        """Complete one prompt, or several in one batch.

        Arguments and errors are those of :meth:`LLM.generate`; errors come with the first ``await``.

        Returns:
            A stream for ``async for``; or ``await`` it for the whole answer (a list for a list of prompts).
        """
        maker, start = self._maker, time.monotonic()
        return AsyncCompletionStream(
            self._service, lambda: maker.generate(prompts, params, start=start, **options), single=is_single(prompts),
            brief=is_brief(prompts),
        )  # fmt: skip

    def chat(
        self,
        messages: Sequence[Message],
        params: SamplingParams | None = None,
        *,
        tools: Sequence[Any] | None = None,
        tool_choice: ToolChoice = None,
        parallel_tool_calls: bool = True,
        response_format: Any = None,
        thinking_budget: int | None = None,
        parse: bool = True,
        adapter: str | None = None,
        options: RequestSettings | None = None,
        **template: Any,
    ) -> AsyncCompletionStream:
        """Answer a conversation; arguments and errors are those of :meth:`LLM.chat`, the result is as of generate."""
        maker, start = self._maker, time.monotonic()
        call = ChatCall(
            messages=messages, tools=tools, tool_choice=tool_choice, parallel_tool_calls=parallel_tool_calls,
            response_format=response_format, thinking_budget=thinking_budget, parse=parse, template=template,
        )  # fmt: skip
        chosen = with_adapter(options, adapter)
        return AsyncCompletionStream(self._service, lambda: maker.chat(call, params, chosen, start=start), single=True)

    async def logits(self, prompts: Any, **options: Unpack[RequestSettings]) -> Any:
        """As :meth:`LLM.logits`."""
        outputs = await self._task(prompts, Task.LOGITS, **options)
        return outputs[0] if is_single(prompts) else outputs

    async def embed(self, prompts: Any, **options: Unpack[RequestSettings]) -> NDArray[np.float32]:
        """As :meth:`LLM.embed`."""
        outputs = await self._task(prompts, Task.EMBED, **options)
        return outputs[0] if is_single(prompts) else np.stack(outputs)

    async def requantize(
        self,
        quant: str | None,
        *,
        from_memory: bool = False,
        progress: Progress | None = None,
        **settings: Unpack[QuantSettings],
    ) -> None:
        """As :meth:`LLM.requantize`, beside the event loop: streams pause and go on."""
        asked = {"quant": quant, **settings}
        change = partial(self._service.requantize, asked, from_memory=from_memory, progress=progress)
        await asyncio.to_thread(change)

    def blocking(self) -> LLM:
        """The same running model for threads without an event loop."""
        return LLM.over(self._service, self._maker.adapter)

    async def aclose(self) -> None:
        """As :meth:`close`, beside the event loop."""
        await asyncio.to_thread(self.close)

    async def _task(self, prompts: Any, task: Task, **options: Unpack[RequestSettings]) -> list[NDArray[np.float32]]:
        maker = self._maker
        async with AsyncCompletionStream(
            self._service, lambda: maker.task(prompts, task, **options), single=False
        ) as stream:
            return [np.asarray(output, dtype=np.float32) for output in await stream.task_outputs()]

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exception: object) -> None:
        await self.aclose()
