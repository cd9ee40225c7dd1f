# SPDX-License-Identifier: Apache-2.0
"""What a tool is, what a user may want of it, what it gives back, and how the model tells that."""

from __future__ import annotations

import json

from attrs import field, frozen

from training.talkgrammar import facts
from training.talkgrammar.smalltalk import thing_of
from training.talkgrammar.wording import Speaker

Value = str | int | float | bool


@frozen
class Parameter:
    """A parameter of a tool; `options` makes it an enumeration."""

    name: str
    type: str = "string"
    required: bool = True
    options: tuple[str, ...] = ()

    def schema(self) -> dict[str, object]:
        """Its JSON schema."""
        return {"type": self.type, **({"enum": list(self.options)} if self.options else {})}


@frozen
class Tool:
    """A function that the request offers."""

    name: str
    description: str
    parameters: tuple[Parameter, ...] = ()

    def openai(self) -> dict[str, object]:
        """As OpenAI's API takes it."""
        schema = {
            "type": "object",
            "properties": {p.name: p.schema() for p in self.parameters},
            "required": [p.name for p in self.parameters if p.required],
        }
        function = {"name": self.name, "description": self.description, "parameters": schema}
        return {"type": "function", "function": function}


@frozen
class Call:
    """One use of a tool: its arguments, what it gives back, and how the answer says that."""

    arguments: dict[str, Value]
    result: str
    answer: str


@frozen
class Need:
    """A request that `tool` fits, with the calls that it takes (more than one: in parallel)."""

    kind: str
    tool: Tool
    request: str
    calls: tuple[Call, ...] = field(converter=tuple)


PLACES = ("city", "location", "place")


def answer_of(result: str, prefix: str = "") -> str:
    """How the model tells a result: sentences as they are, values as the answer, fields one by one."""
    try:
        value = json.loads(result)
    except ValueError:
        return result if result.endswith(".") else f"The answer is {result}."
    if not isinstance(value, dict):
        return f"The answer is {result}."
    if "error" in value:
        return f"The tool failed: {value['error']}."
    if len(value) == 1 and next(iter(value)) in ("result", "answer", "value", "output"):
        return f"The answer is {text_of(*value.values())}."
    fields = " and ".join(
        f"the {key} is {text_of(item)}" for key, item in value.items() if not (prefix and key in PLACES)
    )
    return f"{prefix}{fields}." if prefix else f"{fields[0].upper()}{fields[1:]}."


def text_of(value: Value) -> str:
    """A value as it stands in JSON, without quotes."""
    return value if isinstance(value, str) else json.dumps(value)


def spelled(s: Speaker, *words: str) -> str:
    """A function's name: get_weather, mostly, or getWeather."""
    if s.chance(0.12):
        return words[0] + "".join(word.capitalize() for word in words[1:])
    return "_".join(words)


def broken(s: Speaker) -> str:
    """What a tool says when it fails."""
    said = s.pick(("not found", "no connection", "timeout", "unknown place", "bad input", f"no {s.invented()}"))
    return json.dumps({"error": said})


def place(s: Speaker) -> str:
    """A city; every third does not exist."""
    return s.invented().capitalize() if s.chance(0.35) else s.pick(facts.CITIES)


def amount(s: Speaker) -> int:
    """A number of one to four digits."""
    return s.number(0, 10 ** s.number(1, 4) - 1)


def result_of(s: Speaker) -> str:
    """What an unknown tool gives back."""
    draw = s.rng.random()
    if draw < 0.25:
        return json.dumps(some_fields(s, 1))
    if draw < 0.55:
        return json.dumps(some_fields(s, 2))
    if draw < 0.65:
        return json.dumps({"result": some_value(s)})
    if draw < 0.75:
        return s.pick(("ok", "done", "true", "false", str(amount(s)), s.invented()))
    if draw < 0.9:
        return s.word("The {x} is [ready|{n}|here|{k}|{y}].", x=thing_of(s), n=s.name(), k=amount(s), y=s.invented())
    return broken(s)


def some_fields(s: Speaker, count: int) -> dict[str, Value]:
    """An object of `count` fields."""
    return {s.pick((*PARAMETERS, "status", "id", "price", "state", s.invented())): some_value(s) for _ in range(count)}


def some_value(s: Speaker) -> Value:
    """Any value."""
    return s.pick((s.name(), place(s), amount(s), amount(s), s.chance(0.5), s.invented(), "ok", thing_of(s)))


PARAMETERS = facts.words(
    "name title city place date day time size color count amount number level speed mode type user email subject text "
    "topic language country street code key label owner guests people minutes hours price weight height distance "
    "priority room item target source destination from to"
)
