# SPDX-License-Identifier: Apache-2.0
"""``LLM``: the Python API for programs without an event loop. Usable from several threads at a time."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal, Self, overload

import numpy as np
from numpy.typing import NDArray

from tramontane.api.chat_call import ChatCall, Message, ToolChoice
from tramontane.api.face import ModelFace
from tramontane.api.prompts import is_single
from tramontane.api.request_maker import Params
from tramontane.api.results import Completion
from tramontane.api.settings import with_adapter
from tramontane.api.streams import CompletionStream
from tramontane.requests import SamplingParams, Task

if TYPE_CHECKING:
    from typing import Unpack

    from tramontane.api.answers import Answers
    from tramontane.api.settings import QuantSettings, RequestSettings
    from tramontane.progress import Progress


class LLM(ModelFace):
    """A model loaded into this process.

    >>> llm = LLM("demo")
    >>> llm.generate("Once upon a time", SamplingParams(max_tokens=64, temperature=0)).text
    """

    @overload
    def generate(
        self, prompts: str, params: Params = ..., *, stream: Literal[False] = ..., **options: Unpack[RequestSettings]
    ) -> Completion: ...

    @overload
    def generate(
        self, prompts: Any, params: Params = ..., *, stream: Literal[True], **options: Unpack[RequestSettings]
    ) -> CompletionStream: ...

    @overload
    def generate(
        self, prompts: Any, params: Params = ..., *, stream: Literal[False] = ..., **options: Unpack[RequestSettings]
    ) -> Any: ...

    def generate(
        self, prompts: Any, params: Params = None, *, stream: bool = False, **options: Unpack[RequestSettings]
    ) -> Any:
        """Complete one prompt, or several in one batch.

        Args:
            prompts: A text or token ids, or a list of such prompts.
            params: Sampling parameters for all prompts, or one per prompt; by default the model's own defaults.
            stream: Answer with an iterator of deltas instead.
            options: See :class:`tramontane.api.RequestSettings`.

        Returns:
            A :class:`Completion`, or a list of them in the order of the prompts; with ``stream`` a
            :class:`CompletionStream`.

        Raises:
            RequestError: A prompt or the parameters are not usable; nothing runs then.
            PromptTooLongError: A prompt is longer than the model or the cache can hold.
            EngineError: A step failed; the engine goes on.
        """
        answers = self._maker.generate(prompts, params, **options)
        return self._answer(answers, stream=stream, single=is_single(prompts))

    @overload
    def chat(
        self, messages: Sequence[Message], params: SamplingParams | None = ..., *, stream: Literal[False] = ...,
        tools: Sequence[Any] | None = ..., tool_choice: ToolChoice = ..., parallel_tool_calls: bool = ...,
        response_format: Any = ..., thinking_budget: int | None = ..., parse: bool = ..., adapter: str | None = ...,
        options: RequestSettings | None = ..., **template: Any,
    ) -> Completion: ...  # fmt: skip

    @overload
    def chat(
        self, messages: Sequence[Message], params: SamplingParams | None = ..., *, stream: Literal[True],
        tools: Sequence[Any] | None = ..., tool_choice: ToolChoice = ..., parallel_tool_calls: bool = ...,
        response_format: Any = ..., thinking_budget: int | None = ..., parse: bool = ..., adapter: str | None = ...,
        options: RequestSettings | None = ..., **template: Any,
    ) -> CompletionStream: ...  # fmt: skip

    def chat(
        self,
        messages: Sequence[Message],
        params: SamplingParams | None = None,
        *,
        stream: bool = False,
        tools: Sequence[Any] | None = None,
        tool_choice: ToolChoice = None,
        parallel_tool_calls: bool = True,
        response_format: Any = None,
        thinking_budget: int | None = None,
        parse: bool = True,
        adapter: str | None = None,
        options: RequestSettings | None = None,
        **template: Any,
    ) -> Any:
        """Answer a conversation.

        Args:
            messages: Dictionaries with ``role`` and ``content``.
            params: Sampling parameters; by default the model's own, up to the end of the context.
            stream: Answer with an iterator of deltas instead.
            tools: Functions the model may call, as JSON schemas in OpenAI's form.
            tool_choice: ``"auto"`` (the default), ``"none"``, ``"required"``, or a mapping in OpenAI's form that names
                a function or the allowed ones.
            parallel_tool_calls: Whether one answer may make several calls.
            response_format: The form that the answer must have, in OpenAI's form.
            thinking_budget: Most tokens of reasoning: after them its end is forced and the answer begins.
            parse: Tell reasoning and tool calls from the text; ``False`` leaves the model's output as it is.
            adapter: Name of the adapter to use; the same as in ``options``.
            options: See :class:`tramontane.api.RequestSettings`.
            template: Further options of the chat template (``enable_thinking=False`` ...).

        Raises:
            RequestError: The model has no chat template, the template refuses the messages, or parameters are wrong.
            PromptTooLongError: The conversation is longer than the model or the cache can hold.
            EngineError: A step failed; the engine goes on.
        """
        call = ChatCall(
            messages=messages, tools=tools, tool_choice=tool_choice, parallel_tool_calls=parallel_tool_calls,
            response_format=response_format, thinking_budget=thinking_budget, parse=parse, template=template,
        )  # fmt: skip
        answers = self._maker.chat(call, params, with_adapter(options, adapter))
        return self._answer(answers, stream=stream, single=True)

    def logits(self, prompts: Any, **options: Unpack[RequestSettings]) -> Any:
        """The logits after every token of a prompt.

        Args:
            prompts: A text or token ids, or a list of such prompts.
            options: See :class:`tramontane.api.RequestSettings`.

        Returns:
            A float32 array [tokens, vocab]: row i predicts token i + 1. For a list of prompts, a list of arrays.
        """
        outputs = self._task(prompts, Task.LOGITS, **options)
        return outputs[0] if is_single(prompts) else outputs

    def embed(self, prompts: Any, **options: Unpack[RequestSettings]) -> NDArray[np.float32]:
        """One vector per text.

        Args:
            prompts: A text or token ids, or a list of such prompts.
            options: See :class:`tramontane.api.RequestSettings`.

        Returns:
            A float32 array [prompts, hidden]; for one prompt that was not in a list, [hidden].
        """
        outputs = self._task(prompts, Task.EMBED, **options)
        return outputs[0] if is_single(prompts) else np.stack(outputs)

    def requantize(
        self,
        quant: str | None,
        *,
        from_memory: bool = False,
        progress: Progress | None = None,
        **settings: Unpack[QuantSettings],
    ) -> None:
        """Bring the weights into another type while the model runs.

        Requests go on: the step in flight ends, weights are exchanged one matrix at a time, and running sequences
        compute what they have so far anew. Returns when that is done; a model that fails half-way runs on with what
        has been exchanged by then.

        Args:
            quant: The type, or a number of bits; ``None`` is what the checkpoint holds.
            from_memory: Quantize the weights as they are kept. Else what the checkpoint holds as floats is read from it
                again, so that nothing is lost by having been in fewer bits.
            progress: Told how far it is.
            settings: ``organization``, ``topology``, ``imatrix`` or ``calibrate``, as when loading.

        Raises:
            UnknownNameError: There is no type of that name; nothing has changed.
            ConfigError: A setting is wrong; nothing has changed.
            OutOfMemoryError: The larger weights do not fit; nothing has changed.
            CheckpointError: A tensor cannot be read again.
            EngineClosedError: The model was closed.
        """
        self._service.requantize({"quant": quant, **settings}, from_memory=from_memory, progress=progress)

    def _answer(self, answers: Answers, *, stream: bool, single: bool) -> Any:
        running = CompletionStream(self._service, answers)
        if stream:
            return running
        with running:
            completions = running.completions()
        return completions[0] if single else completions

    def _task(self, prompts: Any, task: Task, **options: Unpack[RequestSettings]) -> list[NDArray[np.float32]]:
        answers = self._maker.task(prompts, task, **options)
        with CompletionStream(self._service, answers) as running:
            running.completions()
        return [np.asarray(output, dtype=np.float32) for output in answers.task_outputs()]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()
