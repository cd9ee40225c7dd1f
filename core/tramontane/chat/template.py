# SPDX-License-Identifier: Apache-2.0
"""A model's chat template: a conversation in, the text of a prompt out.

The template is run in a sandbox with limits; whatever goes wrong in it is a typed error. What users wrote is marked
(:mod:`tramontane.tokenizer.marks`), so that only the template itself can write control tokens. It knows nothing about
particular models; quirks and tool-call formats are for chat formats.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping, Sequence
from datetime import datetime
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import jinja2
from attrs import frozen
from jinja2 import meta

from tramontane.chat.errors import TemplateError, TemplateFailedError
from tramontane.chat.messages import Habits, plain, plain_messages
from tramontane.chat.meter import Meter, RenderLimits, current
from tramontane.chat.sandbox import ChatEnvironment
from tramontane.chat.sources import TemplateSource, additional_names, find_template
from tramontane.checkpoint import Files
from tramontane.errors import RequestError, TramontaneError
from tramontane.tokenizer import Tokenizer
from tramontane.tokenizer.marks import Marker, without_marks

#: Under which templates look for tools.
TOOL_NAMES = ("tools", "xml_tools", "available_tools")

#: Names that request-supplied variables may not take: the template's own inputs, and what other implementations of
#: chat templates mean by such an argument.
RESERVED = frozenset(
    {
        *("messages", "tools", "documents", "add_generation_prompt", "continue_final_message"),
        *("range", "dict", "namespace", "raise_exception", "strftime_now", "loop", "self", "caller"),
        *("chat_template", "conversation", "tokenize", "return_tensors", "return_dict", "padding", "truncation"),
        *("max_length", "tokenizer_kwargs", "return_assistant_tokens_mask", "template_kwargs"),
        *(
            "additional_special_tokens",
            "bos_token",
            "eos_token",
            "unk_token",
            "pad_token",
            "sep_token",
            "cls_token",
            "mask_token",
        ),
    }
)

_END = "\ufdd4"
"""Put after the message that is to be continued; what the template writes after it is cut off."""
_SPACE = "\u205f"
"""A rare space put after that: gone if the template trims."""
_ADDRESS = re.compile(r" at 0x[0-9a-fA-F]+")


@frozen
class Rendered:
    """A prompt."""

    marked: str
    """With marks around control tokens that users wrote; for :meth:`Tokenizer.encode_rendered`."""

    @property
    def text(self) -> str:
        """As it reads."""
        return without_marks(self.marked)


class ChatTemplate:
    """Renders conversations.

    Args:
        source: The template, or several named ones.
        names: Special tokens by name, which templates write: ``{"bos_token": "<s>", ...}``.
        control: Control tokens that users' text must not produce (:attr:`Tokenizer.control`).
        limits: How much a rendering may take.
        clock: The time that templates see.

    Raises:
        TemplateError: The template is not valid, or too large.
    """

    def __init__(
        self,
        source: TemplateSource | str,
        *,
        names: Mapping[str, Any] | None = None,
        control: Collection[str] = (),
        limits: RenderLimits | None = None,
        clock: Callable[[], datetime] = datetime.now,
    ) -> None:
        if isinstance(source, str):
            source = TemplateSource({"default": source}, "the given template")
        self.source = source
        self.limits = limits or RenderLimits()
        self._names = {**(names or {}), **source.names}
        self._marker = Marker.of(frozenset(control))
        self.writer: Callable[[Mapping[str, Any]], str] | None = None
        """Writes prompts from the variables in place of the template: a chat format that knows better sets it."""
        self._environment = ChatEnvironment(clock)
        self._compiled = {text: self._compile(text) for text in source.templates.values()}
        self._habits: dict[str, Habits] = {}

    @classmethod
    def from_files(
        cls,
        files: Files,
        tokenizer: Tokenizer,
        *,
        override: str | Path | None = None,
        limits: RenderLimits | None = None,
    ) -> ChatTemplate | None:
        """The chat template of a checkpoint, or ``None`` for a base model; see :mod:`tramontane.chat.sources`.

        Raises:
            TemplateError: The template cannot be read or is not valid.
        """
        source = find_template(files, override)
        if source is None:
            return None
        names = {**tokenizer.names, **additional_names(files)}
        return cls(source, names=names, control=tokenizer.control, limits=limits)

    @cached_property
    def variables(self) -> frozenset[str]:
        """Every variable that the templates look at."""
        parsed = map(self._environment.parse, self._compiled)
        return frozenset[str]().union(*map(meta.find_undeclared_variables, parsed))

    @property
    def supports_tools(self) -> bool:
        """Whether a template looks at tools; where none does, they would be dropped without a word."""
        return not self.variables.isdisjoint(TOOL_NAMES) or "tool_use" in self.source.templates

    def render(
        self,
        messages: Sequence[Mapping[str, Any]],
        *,
        tools: Sequence[Any] | None = None,
        documents: Sequence[Any] | None = None,
        add_generation_prompt: bool = True,
        continue_final_message: bool = False,
        enable_thinking: bool | None = None,
        reasoning_effort: str | None = None,
        template_kwargs: Mapping[str, Any] | None = None,
        name: str | None = None,
    ) -> Rendered:
        """A conversation as the text of a prompt.

        Args:
            messages: ``{"role", "content", ...}`` each; content may be a list of text parts.
            tools: Tools on offer, as JSON schemas in OpenAI's form.
            documents: For templates that cite, ``{"title", "text"}`` each.
            add_generation_prompt: End with what begins the assistant's answer.
            continue_final_message: End inside the last message, for the model to go on with it.
            enable_thinking: For templates that can switch reasoning; ``None`` leaves it to the template.
            reasoning_effort: Likewise (``low``, ``medium``, ``high``).
            template_kwargs: Further variables for the template; they cannot replace any of the above.
            name: Which of several named templates.

        Raises:
            RequestError: The arguments are not valid.
            TemplateRefusedError: The template refused the conversation, with its own message.
            TemplateFailedError: The template failed on it.
            TemplateLimitError: The template took too long or wrote too much.
            TemplateError: No template of that name.
        """
        if continue_final_message and add_generation_prompt:
            raise RequestError(
                "add_generation_prompt and continue_final_message exclude each other",
                hint="set add_generation_prompt to false to continue the last message",
            )
        text = self.source.pick(tools=bool(tools), name=name)
        conversation = plain_messages(messages)
        habits = self._habits_of(text)
        habits.adapt(conversation)
        offered = plain(list(tools or []), "tools")
        conversation = self._marker.mark_all(conversation)
        if continue_final_message:
            _open_end(conversation)
        shown = self._marker.mark_all(offered) if offered or habits.needs_tools else None
        variables = {
            **dict.fromkeys((name for name in TOOL_NAMES if name in self.variables), shown),
            **self._extra(template_kwargs, enable_thinking, reasoning_effort),
            **self._names,
            "messages": conversation,
            "tools": shown,
            "documents": self._marker.mark_all(plain(list(documents), "documents")) if documents else None,
            "add_generation_prompt": add_generation_prompt,
        }
        if self.writer is not None:
            rendered = _written(self.writer, variables)
        else:
            rendered = self._run(self._compiled[text], variables)
        return Rendered(_cut_end(rendered) if continue_final_message else rendered)

    def encode(self, tokenizer: Tokenizer, messages: Sequence[Mapping[str, Any]], **options: Any) -> list[int]:
        """The token ids of a rendered conversation; ``options`` as for :meth:`render`."""
        return tokenizer.encode_rendered(self.render(messages, **options).marked)

    def _extra(
        self, given: Mapping[str, Any] | None, enable_thinking: bool | None, reasoning_effort: str | None
    ) -> dict[str, Any]:
        """The variables that a request may set."""
        extra = self._marker.mark_all(plain(dict(given or {}), "chat_template_kwargs"))
        taken = sorted(name for name in extra if name in RESERVED or not name.isidentifier())
        if taken:
            raise RequestError(
                f"chat_template_kwargs may not set {', '.join(taken)[:200]}",
                hint="these are the request's own fields or internals of rendering",
            )
        if enable_thinking is not None:
            extra["enable_thinking"] = enable_thinking
        if reasoning_effort is not None:
            extra["reasoning_effort"] = self._marker.mark(reasoning_effort)
        return extra  # type: ignore[no-any-return]

    def _habits_of(self, text: str) -> Habits:
        habits = self._habits.get(text)
        if habits is None:
            habits = self._habits[text] = Habits.of(partial(self._try, text))
        return habits

    def _try(self, text: str, messages: list[dict[str, Any]], tools: list[Any] | None) -> str:
        inputs = {"messages": messages, "tools": tools, "documents": None, "add_generation_prompt": False}
        return self._run(self._compiled[text], {**self._names, **inputs})

    def _compile(self, text: str) -> jinja2.Template:
        if len(text) > self.limits.source:
            raise TemplateError(
                f"{self.source.origin}: the chat template has more than {self.limits.source} characters"
            )
        try:
            return self._environment.from_string(text)
        except jinja2.TemplateSyntaxError as error:
            raise TemplateError(f"{self.source.origin}, line {error.lineno}: {error.message}") from error
        except (RecursionError, MemoryError, SyntaxError, ValueError, TypeError, OverflowError) as error:
            raise TemplateError(f"{self.source.origin}: the chat template cannot be compiled ({error})") from error

    def _run(self, template: jinja2.Template, variables: dict[str, Any]) -> str:
        """Run a template under a meter of its own."""
        size = sum(len(value) for value in variables.values() if isinstance(value, str))
        meter = Meter(self.limits, size + _size(variables["messages"]) + _size(variables["tools"]))
        token = current.set(meter)
        pieces, length = [], 0
        try:
            for piece in template.generate(variables):
                length += len(piece)
                if length > self.limits.output:
                    meter.text(length)
                pieces.append(piece)
        except TramontaneError:
            raise
        except Exception as error:
            reason = _ADDRESS.sub("", f"{type(error).__name__}: {error}")[:500]
            raise TemplateFailedError(
                f"the chat template cannot render this conversation ({reason})",
                hint="check the roles and contents of the messages, or give another template with --chat-template",
            ) from error
        finally:
            current.reset(token)
        return "".join(pieces)


def _size(value: Any) -> int:
    """Characters and values in plain data."""
    if isinstance(value, dict):
        return sum(len(key) + _size(item) for key, item in value.items())
    if isinstance(value, list):
        return sum(map(_size, value))
    return len(value) if isinstance(value, str) else 1


def _open_end(conversation: list[dict[str, Any]]) -> None:
    """Put the end sign after the text of the last message."""
    last = conversation[-1]
    content = last.get("content")
    if isinstance(content, str):
        last["content"] = content + _END + _SPACE
        return
    for part in reversed(content if isinstance(content, list) else []):
        if isinstance(part, dict) and isinstance(part.get("text"), str):
            part["text"] += _END + _SPACE
            return
    raise RequestError("continue_final_message needs a last message with text")


def _cut_end(rendered: str) -> str:
    """Cut at the end sign. A template that trims contents would have trimmed the message's own trailing spaces too."""
    before, found, after = rendered.rpartition(_END)
    if not found:
        raise TemplateFailedError("the chat template does not write the last message, so it cannot be continued")
    return before if after.startswith(_SPACE) else before.rstrip()


def _written(writer: Callable[[Mapping[str, Any]], str], variables: Mapping[str, Any]) -> str:
    """A prompt that a chat format wrote; what it cannot make sense of is the request's fault."""
    try:
        return writer(variables)
    except (TypeError, ValueError, KeyError, AttributeError, RecursionError) as error:
        raise TemplateFailedError(f"this conversation cannot be written ({type(error).__name__}: {error})") from error
