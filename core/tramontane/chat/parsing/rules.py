# SPDX-License-Identifier: Apache-2.0
"""The grammar of tool calls, in llguidance's dialect of Lark: what notations state their syntax with.

A part of a grammar is an expression in a string; a rule is made where an expression is used by name.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from attrs import define, field, frozen

from tramontane.chat.parsing.sink import properties
from tramontane.errors import RequestError

NAME, ARGUMENTS, NUMBER = "$NAME$", "$ARGUMENTS$", "$NUMBER$"
"""Places in the text of a call: the tool's name, its arguments as JSON, any small number."""
_PLACES = re.compile(r"(\$NAME\$|\$ARGUMENTS\$|\$NUMBER\$)")
_JSON_STYLE = {
    "whitespace_flexible": False, "item_separator": ", ", "key_separator": ": ",
    "lenient": False, "coerce_one_of": False,
}  # fmt: skip
"""As templates write arguments back, so that the next turn's prompt has the tokens that the model wrote."""


@frozen
class RuledTool:
    """A tool as the grammar needs it."""

    name: str
    schema: Mapping[str, Any]
    """Of the arguments; any object where the model is not held to the tool's own."""

    @property
    def properties(self) -> Mapping[str, Any]:
        """Parameters with their schemas."""
        return properties(self.schema)

    @property
    def required(self) -> Sequence[str]:
        """Parameters that must be there."""
        found = self.schema.get("required")
        return found if isinstance(found, Sequence) else ()

    def within(self, schema: Any) -> Any:
        """A parameter's schema with the definitions that it may refer to."""
        definitions = {key: self.schema[key] for key in ("$defs", "definitions") if key in self.schema}
        return {**definitions, **schema} if isinstance(schema, Mapping) else schema


@define(eq=False)
class Rules:
    """Builds the grammar of calls of some tools."""

    tools: Sequence[RuledTool]
    parallel: bool
    special: Callable[[str], int | None]
    """The id of a text that is one special token."""
    marks: Sequence[str] = ()
    """Texts of the format that may be special tokens."""
    _rules: dict[str, str] = field(factory=dict)
    _tokens: re.Pattern[str] = field(init=False)
    """Any of the marks that are special tokens."""

    def __attrs_post_init__(self) -> None:
        known = sorted((mark for mark in self.marks if self.special(mark) is not None), key=len, reverse=True)
        self._tokens = re.compile("|".join(map(re.escape, known)) or "(?!)")

    def text(self, text: str) -> str:
        """A literal text, its special tokens as such."""
        parts, at = [], 0
        for match in self._tokens.finditer(text):
            parts += [_literal(text[at : match.start()]), f"<[{self.special(match[0])}]>"]
            at = match.end()
        return self.join(*parts, _literal(text[at:]))

    @staticmethod
    def join(*parts: str) -> str:
        """One after the other."""
        return " ".join(part for part in parts if part)

    def maybe(self, text: str) -> str:
        """A literal text or nothing."""
        return f"({self.text(text)})?" if text else ""

    def series(self, one: str, between: str) -> str:
        """One, or where calls may be parallel several."""
        return self.join(one, f"({self.join(self.text(between), one)})*") if self.parallel else one

    def json(self, schema: Any) -> str:
        """A value that is valid under a schema."""
        styled = {**schema, "x-guidance": _JSON_STYLE} if isinstance(schema, Mapping) else schema
        return self._rule("json", "%json " + json.dumps(styled, ensure_ascii=False))

    def text_until(self, end: str) -> str:
        """Any text, and the first ``end`` after it."""
        match = self._tokens.search(end)
        if match is not None:  # what stands before the token is part of the free text
            return self.join("/(.|\\n)*/", self.text(end[match.start() :]))
        return self._rule("until", "/(.|\\n)*/", f"[suffix={_literal(end)}]")

    def text_of(self, tokens: int, end: str) -> str:
        """Any text of at most so many tokens, and the special token ``end``.

        Raises:
            RequestError: ``end`` is no special token of the vocabulary: text would have to be taken back to force it.
        """
        token = self.special(end)
        if token is None:
            raise RequestError(f"a thinking budget needs a vocabulary in which {end} is one token")
        free = self._rule("thought", "/(.|\\n)*/", f"[max_tokens={tokens}]") if tokens else ""
        return self.join(free, f"<[{token}]>")

    def any_tool(self, expression: Callable[[RuledTool], str]) -> str:
        """One of the tools."""
        return self._rule("call", " | ".join(expression(tool) for tool in self.tools))

    def calls(self, written: str) -> str:
        """One call, written with the places :data:`NAME`, :data:`ARGUMENTS` and :data:`NUMBER`."""
        return self.any_tool(lambda tool: self._filled(written, tool))

    def python_calls(self, suffix: str = "") -> str:
        """One call in Python's syntax, its values in JSON's."""
        return self.any_tool(
            lambda tool: self.join(self.text(f"{tool.name}{suffix}("), self._keywords(tool), self.text(")"))
        )

    def grammar(self, start: str) -> str:
        """The whole: every rule, and where to begin."""
        return "\n".join([f"start: {start}", *self._rules.values()])

    def _filled(self, written: str, tool: RuledTool) -> str:
        parts = []
        for piece in _PLACES.split(written.replace(NAME, tool.name)):
            if piece == ARGUMENTS:
                parts.append(self.json(tool.schema))
            elif piece == NUMBER:
                parts.append("/[0-9]{1,3}/")
            else:
                parts.append(self.text(piece))
        return self.join(*parts)

    def _keywords(self, tool: RuledTool) -> str:
        """``key=value`` for the parameters in order; what is not required may be left out."""
        later, first = "", ""
        for key, schema in reversed(list(tool.properties.items())):
            one = self.join(self.text(f"{key}="), self.json(tool.within(schema)))
            begun = self.join(one, later)
            if key in tool.required:
                first, later = begun, self.join(self.text(", "), one, later)
            else:
                first = self._rule("args", f"{begun} | {first}" if first else f"({begun})?")
                later = self.join(f"({self.text(', ')} {one})?", later)
            later = self._rule("args", later)
        return first

    def _rule(self, kind: str, body: str, attributes: str = "") -> str:
        """The name of the rule with this body."""
        key = attributes + body
        if key not in self._rules:
            self._rules[key] = f"{kind}_{len(self._rules)}{attributes}: {body}"
        return self._rules[key].split(":", 1)[0].split("[", 1)[0]


def _literal(text: str) -> str:
    return json.dumps(text, ensure_ascii=False) if text else ""
