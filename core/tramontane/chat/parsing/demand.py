# SPDX-License-Identifier: Apache-2.0
"""What a request demands of an answer beyond what the model would write, and the constraint that brings it about."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from attrs import frozen

from tramontane.chat.parsing.rules import RuledTool, Rules
from tramontane.chat.parsing.sink import Offered
from tramontane.chat.parsing.syntax import ANY, CallSyntax
from tramontane.errors import RequestError
from tramontane.grammar import Constraint, Kind

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
    budget: int | None = None
    """Most tokens of reasoning; its end is forced after them."""

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
    if demand.budget is not None:
        raise RequestError(
            "a thinking budget and tools that the model must be held to go together where a call is required only",
            hint='use tool_choice "required", or tools that are not strict',
        )
    if opens:
        return Constraint.lark(rules.grammar(body)).triggered(syntax.opens, again=True)
    start = rules.join(_reasoning(form, demand, rules), f"({body} | FREE)?")
    return Constraint.lark(f"{rules.grammar(start)}\nFREE: /(.|\\n)+/ & ~/{_bare(syntax, demand)}(.|\\n)*/")


def budget_constraint(
    form: ChatFormat,
    demand: Demand,
    special: Callable[[str], int | None],
    free: Sequence[int],
    answer: Constraint | None,
) -> Constraint:
    """The constraint that ends the reasoning after :attr:`Demand.budget` tokens and leaves what follows free.

    Args:
        form: How the model writes reasoning.
        demand: What is demanded.
        special: The id of a text that is one special token of the vocabulary.
        free: Special tokens that may stand in the answer.
        answer: What the answer must look like: a JSON schema or any JSON object.

    Raises:
        RequestError: The reasoning has no end that can be forced, or the answer's constraint is of another kind.
    """
    opens = special(form.reasoning.opens) if form.reasoning is not None else None
    rules = Rules((), demand.parallel, special, form.visible)
    head = _reasoning(form, demand, rules)
    if answer is None:
        ids = ",".join(str(token) for token in sorted(free) if token != opens)
        rest = f"TEXT? (<[{ids}]> TEXT?)*" if ids else "TEXT?"
    elif answer.kind in (Kind.JSON_SCHEMA, Kind.JSON_OBJECT) and not answer.after:
        rest = rules.json(json.loads(answer.value) if answer.kind is Kind.JSON_SCHEMA else ANY_OBJECT)
    else:
        raise RequestError("a thinking budget goes with a response_format of JSON only")
    return Constraint.lark(rules.grammar(rules.join(head, rest)) + "\nTEXT: /(.|\\n)+/")


def _reasoning(form: ChatFormat, demand: Demand, rules: Rules) -> str:
    """Reasoning before the calls, where the prompt has opened it or the model may."""
    if form.reasoning is None:
        if demand.budget is not None:
            raise RequestError("the model's chat format has no reasoning that a budget could end")
        return ""
    if demand.budget is None:
        thought = rules.text_until(form.reasoning.closes)
    else:
        thought = rules.text_of(demand.budget, form.reasoning.closes)
    rest = rules.join(thought, "/\\n{0,2}/") if demand.held else thought
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
