# SPDX-License-Identifier: Apache-2.0
"""What a request demands of an answer beyond what the model would write, and the constraint that brings it about."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from attrs import frozen

from tramontane.chat.parsing.rules import RuledTool, Rules
from tramontane.chat.parsing.sink import Offered
from tramontane.chat.parsing.syntax import ANY, CallSyntax
from tramontane.errors import RequestError
from tramontane.grammar import Constraint

if TYPE_CHECKING:
    from tramontane.chat.parsing.format import ChatFormat

ANY_OBJECT = {"type": "object"}


@frozen(kw_only=True)
class Demand:
    """What the grammar has to see to."""

    offered: Offered
    """The tools that may be called."""
    required: bool = False
    """The answer must be calls."""
    narrowed: bool = False
    """Other tools are in the prompt too."""
    parallel: bool = True
    thinking: bool = False
    """The prompt has opened the reasoning."""

    @property
    def held(self) -> bool:
        """Whether a grammar is needed for the calls."""
        return self.required or self.narrowed or any(self.offered.strict.get(name) for name in self.offered.schemas)

    def ruled(self) -> list[RuledTool]:
        """The tools, with the schema that the model is held to.

        That is a tool's own where it is strict, or where a call is required and the tool does not say it is not strict.
        """
        return [
            RuledTool(name, schema if schema and self.offered.strict.get(name, self.required) else ANY_OBJECT)
            for name, schema in self.offered.schemas.items()
        ]


def call_constraint(form: ChatFormat, demand: Demand, special: Callable[[str], int | None]) -> Constraint | None:
    """The constraint that makes a model call as demanded; ``None`` where none is needed.

    Args:
        form: How it writes calls.
        demand: What is demanded.
        special: The id of a text that is one special token of the vocabulary.

    Raises:
        RequestError: The format cannot state the grammar of its calls.
    """
    if not demand.held or not demand.offered.schemas:
        return None
    syntax = form.writes or (form.calls[0] if form.calls else None)
    rules = Rules(demand.ruled(), demand.parallel, special, form.visible)
    body = syntax.body(rules) if syntax is not None else None
    if syntax is None or body is None:
        raise RequestError("the model's chat format cannot require calls or hold them to a schema")
    opens = syntax.opens[0] if syntax.opens else ""
    if demand.required:
        block = rules.join(rules.text(opens), body)
        blocks = f"{block} ({rules.text(form.between)} {block})*" if opens and demand.parallel else block
        whole = rules.join(rules.text(form.around[0]), blocks, rules.text(form.around[1]))
        return Constraint.lark(rules.grammar(rules.join(_reasoning(form, demand, rules), whole)))
    if opens:
        return Constraint.lark(rules.grammar(body)).triggered(syntax.opens, again=True)
    start = rules.join(_reasoning(form, demand, rules), f"({body} | FREE)?")
    return Constraint.lark(f"{rules.grammar(start)}\nFREE: /(.|\\n)+/ & ~/{_bare(syntax, demand)}(.|\\n)*/")


def _reasoning(form: ChatFormat, demand: Demand, rules: Rules) -> str:
    """Reasoning before the calls, where the prompt has opened it or the model may."""
    if form.reasoning is None:
        return ""
    rest = rules.join(rules.text_until(form.reasoning.closes), "/\\n{0,2}/")
    return rest if demand.thinking else f"({rules.text(form.reasoning.opens)} {rest})?"


def _bare(syntax: CallSyntax, demand: Demand) -> str:
    """A pattern for how a call without a marker begins."""
    if syntax.firsts == ANY:
        return f"({'|'.join(map(re.escape, demand.offered.schemas))})\\n"
    return f"[{re.escape(syntax.firsts)}]"


def format_constraint(given: Any) -> Constraint | None:
    """The constraint of a ``response_format``: OpenAI's object, or a constraint as it is.

    Raises:
        RequestError: It has another form.
        GrammarError: The schema cannot be used.
    """
    if given is None or isinstance(given, Constraint):
        return given
    kind = given.get("type") if isinstance(given, dict) else None
    if kind == "text":
        return None
    if kind == "json_object":
        return Constraint.json_object()
    if kind == "json_schema":
        inner = given.get("json_schema")
        schema = inner.get("schema") if isinstance(inner, dict) else given.get("schema")
        if isinstance(schema, dict | bool):
            return Constraint.json_schema(schema)
    raise RequestError(
        'response_format must be {"type": "text"}, {"type": "json_object"}, {"type": "json_schema", "json_schema": '
        '{"schema": {...}}} or a Constraint'
    )
