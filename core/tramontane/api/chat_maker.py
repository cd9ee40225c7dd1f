# SPDX-License-Identifier: Apache-2.0
"""From a call of ``chat`` to the ids of its prompt and to how its answer is made and read. Nothing runs here."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from attrs import define, field, frozen

from tramontane.api.chat_call import ChatCall, Message
from tramontane.api.reading import Reading
from tramontane.api.tool_choice import ToolChoice
from tramontane.chat.messages import media_kind
from tramontane.chat.parsing import ChatFormat, Demand, Offered, budget_constraint, format_constraint
from tramontane.chat.recall import Recall
from tramontane.errors import ModalityError, RequestError
from tramontane.grammar import Constraint
from tramontane.requests import EngineRequest
from tramontane.tools import schemas

if TYPE_CHECKING:
    from tramontane.chat import ChatTemplate, Rendered
    from tramontane.tokenizer import Tokenizer

_log = logging.getLogger(__name__)
_RENDER_OPTIONS = frozenset(
    {
        "documents", "add_generation_prompt", "continue_final_message", "enable_thinking", "reasoning_effort",
        "template_kwargs", "name",
    }
)  # fmt: skip
"""What :meth:`tramontane.chat.ChatTemplate.render` takes by name."""


@frozen
class Prepared:
    """A chat ready to become a request."""

    ids: list[int]
    reading: Reading | None
    constraint: Constraint | None
    """What the answer must look like."""
    ends: tuple[int, ...]
    """Tokens that end the answer, beside those of the tokenizer."""


@define(eq=False)
class ChatMaker:
    """Prepares the chats of one model."""

    name: str
    """What the model is called in messages."""
    tokenizer: Tokenizer | None
    template: ChatTemplate | None
    form: ChatFormat | None
    """How the model writes reasoning and calls; ``None`` where no installed format knows the template."""
    _said: bool = field(default=False, init=False)
    _recall: Recall | None = field(default=None, init=False)

    def prepare(self, call: ChatCall, salt: bytes = b"") -> Prepared:
        """Render a conversation and decide how its answer is read.

        Args:
            call: What was asked.
            salt: Separates callers that must not see one another's tokens.

        Raises:
            RequestError: The model cannot chat, the template refuses the messages, or the call asks for what the format
                cannot do.
        """
        tools = schemas(call.tools)
        offered = Offered.of(tools)
        choice = ToolChoice.of(call.tool_choice, tuple(offered.schemas))
        rendered = self._rendered(call.messages, [] if choice.mode == "none" else tools, call.template)
        ids = self._recalled().apply(self._tokenizer().encode_rendered(rendered.marked), salt)
        answer, budget = format_constraint(call.response_format), _checked_budget(call.thinking_budget)
        if self.form is None:
            self._refuse_forced(call, choice)
            if budget is not None:
                raise RequestError(
                    f"no installed chat format knows how {self.name} writes reasoning", hint=_NAME_FORMAT
                )
            return Prepared(ids, None, answer, ())
        demand = Demand(
            offered=offered.only(choice.allowed),
            required=choice.mode == "required",
            narrowed=choice.narrowed,
            parallel=call.parallel_tool_calls,
            thinking=self.form.opens_reasoning(rendered.text[-_TAIL:]),
            budget=budget,
        )
        reading = Reading(
            form=self.form,
            offered=demand.offered,
            visible=self._ids(self.form.visible) & self._tokenizer().special_ids,
            thinking=demand.thinking,
            most_calls=None if call.parallel_tool_calls else 1,
        )
        constraint = self._constraint(self.form, demand, answer)
        return Prepared(ids, reading if call.parse else None, constraint, tuple(sorted(self._ids(self.form.ends))))

    def _constraint(self, form: ChatFormat, demand: Demand, answer: Constraint | None) -> Constraint | None:
        """The one constraint of an answer: on its calls, or on its text after the reasoning."""
        calls = form.constraint(demand, self._special)
        if calls is not None and answer is not None:
            raise RequestError(
                "response_format and tools that the model must be held to exclude each other",
                hint='use tool_choice "auto" with tools that are not strict, or leave response_format out',
            )
        if calls is None and demand.budget is not None:
            return budget_constraint(form, demand, self._special, self._free(form), answer)
        if answer is not None and demand.thinking and form.reasoning is not None and not answer.after:
            answer = answer.triggered((form.reasoning.closes,))
        return calls if answer is None else answer

    def _special(self, text: str) -> int | None:
        """The id of a text that is one token of its own. llguidance takes an added token in angle brackets for one even
        where the vocabulary does not flag it as special."""
        tokenizer = self._tokenizer()
        found = tokenizer.token_id(text)
        added = found in tokenizer.special_ids or (found in tokenizer.added_ids and text[0] == "<" and text[-1] == ">")
        return found if added else None

    def _free(self, form: ChatFormat) -> list[int]:
        """Tokens of their own that may stand in an answer: all but those that end it."""
        tokenizer = self._tokenizer()
        ends = {*tokenizer.eos_ids, *self._ids(form.ends)}
        return [
            token for token, text in tokenizer.added_ids.items() if token not in ends and self._special(text) == token
        ]

    @property
    def takes_budget(self) -> bool:
        """Whether a thinking budget can be kept."""
        if self.form is None or self.form.reasoning is None or self.tokenizer is None:
            return False
        return self._special(self.form.reasoning.closes) is not None

    def remember(self, request: EngineRequest, answer: Sequence[int]) -> None:
        """A request was answered with these tokens; see :class:`tramontane.chat.recall.Recall`."""
        self._recalled().remember(request.prompt_token_ids, answer, request.salt)

    def _recalled(self) -> Recall:
        if self._recall is None:
            tokenizer = self._tokenizer()
            self._recall = Recall(tokenizer.token_bytes, tokenizer.control_ids)
        return self._recall

    def render(self, messages: Sequence[Message], *, tools: Sequence[Any] | None = None, **template: Any) -> list[int]:
        """The token ids of a conversation, by the model's chat template.

        Raises:
            RequestError: The model has no template or tokenizer, the template takes no tools, or the messages are not a
                list of messages.
        """
        rendered = self._rendered(messages, schemas(tools), template)
        return self._tokenizer().encode_rendered(rendered.marked)

    def _rendered(
        self, messages: Sequence[Message], tools: Sequence[Mapping[str, Any]], options: Mapping[str, Any]
    ) -> Rendered:
        if isinstance(messages, str | Mapping) or not isinstance(messages, Sequence) or not messages:
            raise RequestError("messages must be a list of messages, each with a role and a content")
        if self.template is None:
            raise RequestError(
                f"{self.name} has no chat template, so it cannot chat",
                hint="complete text with generate(), or give a template with chat_template",
            )
        if tools and not self.template.supports_tools:
            raise RequestError(f"the chat template of {self.name} takes no tools", hint="leave tools out")
        self._refuse_media(messages)
        return self.template.render(list(messages), tools=tools or None, **_template_options(options))

    def _refuse_media(self, messages: Sequence[Message]) -> None:
        """Nothing here turns media into embeddings, and a template would write their addresses as text."""
        for place, message in enumerate(messages):
            found = media_kind(message)
            if found is not None:
                raise ModalityError(
                    f"messages[{place}] holds {found}, and {self.name} takes text alone",
                    hint="leave it out, or choose a model that takes it",
                )

    def _refuse_forced(self, call: ChatCall, choice: ToolChoice) -> None:
        """Without a format nothing tells what a call looks like: it can be neither forced nor found."""
        if not choice.allowed:
            return
        if choice.mode == "required" or choice.narrowed:
            raise RequestError(f"no installed chat format knows how {self.name} writes tool calls", hint=_NAME_FORMAT)
        if call.parse and not self._said:
            self._said = True
            _log.warning(
                "tool calls of %s stay text: no installed chat format knows its template; %s", self.name, _NAME_FORMAT
            )

    def _ids(self, texts: Sequence[str]) -> frozenset[int]:
        found = map(self._tokenizer().token_id, texts)
        return frozenset(token for token in found if token is not None)

    def _tokenizer(self) -> Tokenizer:
        if self.tokenizer is None:
            raise RequestError(f"{self.name} has no tokenizer", hint="give token ids, or a tokenizer with tokenizer=")
        return self.tokenizer


_NAME_FORMAT = "name the model's format with chat_format (--chat-format); `tramontane plugins` lists those installed"
_TAIL = 256
"""Characters at a prompt's end that show whether it opens the reasoning."""


def _checked_budget(budget: Any) -> int | None:
    if budget is None or (isinstance(budget, int) and not isinstance(budget, bool) and 0 <= budget < 2**31):
        return budget
    raise RequestError(f"thinking_budget must be a whole number of tokens from 0, got {budget!r}")


def _template_options(given: Mapping[str, Any]) -> dict[str, Any]:
    """Options that rendering knows by name as they are; the others become variables of the template."""
    known = {name: value for name, value in given.items() if name in _RENDER_OPTIONS}
    extra = {name: value for name, value in given.items() if name not in _RENDER_OPTIONS}
    if extra:
        known["template_kwargs"] = {**(known.get("template_kwargs") or {}), **extra}
    return known
