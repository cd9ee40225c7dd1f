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
from tramontane_frontend_chat.media import content
from tramontane_frontend_chat.models import Models
from tramontane_frontend_chat.statistics import Meter
from tramontane_frontend_chat.themes import Display

if TYPE_CHECKING:
    from tramontane.api import LLM, Completion, CompletionStream
    from tramontane_frontend_chat.markdown import AnswerWriter


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
        """Forget what was said, keep system message and settings."""
        self.messages.clear()
        self.meter.clear()

    def answer(
        self, text: str, writer: AnswerWriter, started: Callable[[CompletionStream], None] = lambda stream: None
    ) -> Completion:
        """Send a message and write the answer as it arrives.

        Args:
            text: The person's message.
            writer: Gets the pieces of the answer.
            started: Called with the stream before its first piece, so that a signal handler can cancel it.

        Returns:
            The whole answer; of a cancelled one, what had arrived. It is part of the conversation from then on.

        Raises:
            ModalityError: The message names an image or sound, and the model takes none.
            TramontaneError: The request failed; the message is not part of the conversation then.
        """
        message = {"role": "user", "content": content(text)}
        with self._stream(text, message) as stream:
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
        if not self.raw and (completion.text or completion.finish_reason is not FinishReason.CANCELED):
            self.messages += [message, as_message(completion)]
        return completion

    def _stream(self, text: str, message: dict[str, Any]) -> CompletionStream:
        """The answer to a message after those before it; of a base model, what continues the text."""
        try:
            if self.raw:
                if not isinstance(message["content"], str):
                    raise ModalityError(f"{self.llm.name} continues plain text, and takes no images or sound")
                return self.llm.generate(text, self.params(), stream=True, adapter=self.adapter)
            opening = [{"role": "system", "content": self.system}] if self.system else []
            said = [*opening, *self.messages, message]
            return self.llm.chat(said, self.params(), stream=True, adapter=self.adapter, **self.template)
        except ModalityError as error:
            hint = "put a path in `backticks` to send its words and not its file"
            raise ModalityError(error.message, hint=hint) from None
