# SPDX-License-Identifier: Apache-2.0
"""Harmony, the format of gpt-oss: an answer is a series of messages, each in a channel and perhaps to a tool.

``<|channel|>analysis<|message|>`` is reasoning, ``final`` the answer, and a message ``to=functions.NAME`` a call.
Source: https://github.com/openai/harmony, docs/format.md.
"""

from __future__ import annotations

import re
from collections.abc import Callable

from attrs import frozen

from tramontane.chat.parsing import (
    ARGUMENTS,
    MOST_CALLS,
    NAME,
    ChatFormat,
    Demand,
    Rules,
    Sink,
    Source,
    Steps,
    Stops,
    is_name,
    json_value,
    nowhere,
)
from tramontane.errors import RequestError
from tramontane.grammar import Constraint
from tramontane_tools_chat_formats.harmony_prompt import write_prompt

_START, _CHANNEL, _MESSAGE, _CONSTRAIN = "<|start|>", "<|channel|>", "<|message|>", "<|constrain|>"
_END, _CALL, _RETURN = "<|end|>", "<|call|>", "<|return|>"
_ENDS = Stops.of(_END, _CALL, _RETURN, _START)
_HEADER_ENDS = Stops.of(_MESSAGE, _END, _CALL, _RETURN)
_RECIPIENT = re.compile(r"to=(\S+?)(?=<\||\s|$)")
_CHANNEL_NAME = re.compile(r"<\|channel\|>\s*(\w+)")
_LONGEST_HEADER = 1024
_FUNCTIONS = "functions."


@frozen(kw_only=True)
class Harmony(ChatFormat):
    """The output of a model that speaks Harmony; the prompt has ended with ``<|start|>assistant``."""

    @property
    def visible(self) -> tuple[str, ...]:
        """Texts that make the structure of an answer."""
        return (_START, _CHANNEL, _MESSAGE, _CONSTRAIN, _END, _CALL, _RETURN)

    def opens_reasoning(self, prompt: str) -> bool:
        """The model itself says what each message is, unless the prompt has begun one."""
        return prompt.endswith(f"{_CHANNEL}analysis{_MESSAGE}")

    def constraint(self, demand: Demand, special: Callable[[str], int | None]) -> Constraint | None:
        """After reasoning, where there is any, messages to tools; the answer ends with the first.

        Raises:
            RequestError: There is a thinking budget too: reasoning is a message, and no token alone ends it.
        """
        if not demand.held or not demand.offered.schemas:
            return None
        if demand.budget is not None:
            raise RequestError("the model's chat format has no reasoning that a budget could end")
        rules = Rules(demand.ruled(), False, special, self.visible)
        rest = f"{_CONSTRAIN}json{_MESSAGE}{ARGUMENTS}"
        if not demand.required:
            body = rules.calls(f"{NAME}{_CHANNEL}commentary {rest}")
            return Constraint.lark(rules.grammar(body)).triggered((f" to={_FUNCTIONS}",))
        analysis = rules.join(rules.text_until(_END), rules.text(f"{_START}assistant"))
        if not demand.thinking:
            analysis = f"({rules.text(f'{_CHANNEL}analysis{_MESSAGE}')} {analysis})?"
        call = rules.calls(f"{_CHANNEL}commentary to={_FUNCTIONS}{NAME} {rest}")
        return Constraint.lark(rules.grammar(rules.join(analysis, call)))

    def read(self, source: Source, sink: Sink, thinking: bool) -> Steps[None]:
        """Read messages until the answer ends."""
        if thinking:
            yield from source.until(_ENDS, sink.reasoning)
        while (yield from source.peek()):
            source.record()
            header = yield from source.within(_HEADER_ENDS, _LONGEST_HEADER)
            read = source.recorded()
            if header is None:
                sink.text(read)
                yield from source.until(_ENDS, sink.text)
            elif header[1] == _MESSAGE:
                yield from self._message(source, sink, header[0])

    def _message(self, source: Source, sink: Sink, header: str) -> Steps[None]:
        """Read a message's content, by what its header says."""
        recipient = _RECIPIENT.search(header)
        channel = _CHANNEL_NAME.search(header)
        name = recipient[1].removeprefix(_FUNCTIONS) if recipient is not None else ""
        if is_name(name) and name != "assistant" and sink.offered.schemas and sink.calls < MOST_CALLS:
            yield from self._call(source, sink, name)
        elif channel is not None and channel[1] == "analysis":
            yield from source.until(_ENDS, sink.reasoning)
        else:
            yield from source.until(_ENDS, sink.text)

    def _call(self, source: Source, sink: Sink, name: str) -> Steps[None]:
        sink.begin(name)
        if (yield from source.skip_space()) == "{" and (yield from json_value(source, sink.arguments)):
            yield from source.until(_ENDS, nowhere)
            sink.end()
        else:
            yield from source.until(_ENDS, sink.arguments)
            sink.end(whole=False)


HARMONY = Harmony(ends=(_RETURN, _CALL), write_prompt=write_prompt)
