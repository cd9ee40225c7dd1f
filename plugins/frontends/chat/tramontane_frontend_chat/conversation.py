# SPDX-License-Identifier: Apache-2.0
"""One conversation: its messages, its settings, and the answers streamed into a writer.

It knows nothing of terminals; the commands of :mod:`tramontane_frontend_chat.commands` change it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from attrs import define, field

from tramontane.errors import ModalityError, RequestError, TramontaneError
from tramontane.requests import FinishReason, SamplingParams
from tramontane.tools import as_message
from tramontane_frontend_chat.attachments import Attachment, with_attachments
from tramontane_frontend_chat.models import Models
from tramontane_frontend_chat.statistics import Meter
from tramontane_frontend_chat.themes import Display
from tramontane_frontend_chat.toolbox import Toolbox

if TYPE_CHECKING:
    from tramontane.api import LLM, Completion, CompletionStream
    from tramontane_frontend_chat.markdown import AnswerWriter

ROUNDS = 8
"""Times that the model may go on with the results of its calls."""


@define
class Conversation:
    """What has been said, and how the next answer is to be sampled.

    A model without a chat template is a base model: each message is a text of its own that the model continues.
    """

    llm: LLM
    system: str | None = None
    sampling: dict[str, Any] = field(factory=dict)
    """Sampling parameters the person set; the others are the model's defaults."""
    models: Models | None = None
    """Those it may go on with; ``None`` where there is the one."""
    adapter: str | None = None
    """Name of the adapter that answers; ``None`` for the model as it is."""
    display: Display = field(factory=Display)
    template: dict[str, Any] = field(factory=dict)
    """Variables of the chat template that the person set."""
    messages: list[dict[str, Any]] = field(factory=list)
    """User and assistant messages; the system message is added when the model is asked."""
    meter: Meter = field(factory=Meter)
    toolbox: Toolbox = field(factory=Toolbox)
    """What the model may call."""
    attached: list[Attachment] = field(factory=list)
    """Files for the next message."""

    @property
    def raw(self) -> bool:
        """Whether the model continues plain text because it has no chat template."""
        return not self.llm.has_chat_template

    def params(self) -> SamplingParams:
        """The sampling parameters of the next answer.

        Raises:
            RequestError: A setting is out of range.
        """
        return self.llm.default_params(**{"max_tokens": None, **self.sampling})

    def configure(self, **settings: Any) -> None:
        """Change sampling settings; ``None`` returns one to the model's default.

        Raises:
            RequestError: A value is out of range; nothing has changed then.
        """
        wanted = {name: value for name, value in {**self.sampling, **settings}.items() if value is not None}
        self.llm.default_params(**wanted)
        self.sampling = wanted

    def use(self, name: str) -> None:
        """Let another model answer from here on; what was said and the settings stay, an adapter does not.

        Raises:
            TramontaneError: It cannot be loaded; nothing has changed then.
        """
        if self.models is None:
            raise RequestError("this chat has one model alone")
        before = self.llm.name
        try:
            self.llm = self.models.switch(before, name)
        except TramontaneError:
            self.llm = self.models.load(before)
            raise
        if self.llm.name != before:
            self.adapter = None
            self.meter.clear()

    def clear(self) -> None:
        """Forget what was said and attached, keep system message and settings."""
        self.messages.clear()
        self.attached.clear()
        self.meter.clear()

    def answer(
        self, text: str, writer: AnswerWriter, started: Callable[[CompletionStream], None] = lambda stream: None
    ) -> Completion:
        """Send a message and write the answer as it arrives; tools that it calls are run, and it goes on.

        Args:
            text: The person's message.
            writer: Gets the pieces of the answer.
            started: Called with each stream before its first piece, so that a signal handler can cancel it.

        Returns:
            The whole last answer; of a cancelled one, what had arrived. It is part of the conversation from then on.

        Raises:
            ModalityError: The message names an image or sound, and the model takes none.
            TramontaneError: The request failed; the message is not part of the conversation then.
        """
        said: list[dict[str, Any]] = [{"role": "user", "content": with_attachments(self.attached, text)}]
        completion = self._round(said, writer, started)
        for _ in range(ROUNDS):
            if not (completion.tool_calls and self.toolbox.tools) or completion.finish_reason is FinishReason.CANCELED:
                break
            said.append(as_message(completion))
            for call in completion.tool_calls:
                result = self.toolbox.run(call)
                writer.result(result)
                said.append({"role": "tool", "tool_call_id": call.id, "name": call.name, "content": result})
            completion = self._round(said, writer, started)
        self.attached.clear()
        if not self.raw and (completion.text or completion.finish_reason is not FinishReason.CANCELED):
            self.messages += [*said, as_message(completion)]
        return completion

    def _round(
        self, said: list[dict[str, Any]], writer: AnswerWriter, started: Callable[[CompletionStream], None]
    ) -> Completion:
        """One answer of the model, written as it arrives."""
        with self._stream(said) as stream:
            started(stream)
            self.meter.begin()
            for delta in stream:
                self.meter.add(delta)
                if delta.reasoning:
                    writer.think(delta.reasoning)
                if delta.text:
                    writer.write(delta.text)
            completion = stream.completion()
        self.meter.end(completion)
        for call in completion.tool_calls:
            writer.call(call)
        return completion

    def _stream(self, said: list[dict[str, Any]]) -> CompletionStream:
        """The answer to the last messages after those before them; of a base model, what continues the text."""
        try:
            if self.raw:
                text = said[0]["content"]
                if not isinstance(text, str):
                    raise ModalityError(f"{self.llm.name} continues plain text, and takes no images or sound")
                return self.llm.generate(text, self.params(), stream=True, adapter=self.adapter)
            opening = [{"role": "system", "content": self.system}] if self.system else []
            tools = list(self.toolbox.tools.values()) or None
            return self.llm.chat(
                [*opening, *self.messages, *said], self.params(), tools=tools, stream=True, adapter=self.adapter,
                **self.template,
            )  # fmt: skip
        except ModalityError as error:
            hint = "put a path in `backticks` to send its words and not its file"
            raise ModalityError(error.message, hint=hint) from None
