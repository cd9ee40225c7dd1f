# SPDX-License-Identifier: Apache-2.0
"""Tools that nobody has seen: names and parameters made up on the spot, so that they can only be copied."""

from __future__ import annotations

import json

from training.storygrammar import lexicon
from training.storygrammar.engine import articles
from training.talkgrammar import facts
from training.talkgrammar.smalltalk import thing_of
from training.talkgrammar.toolbox import (
    PARAMETERS,
    Call,
    Need,
    Parameter,
    Tool,
    Value,
    amount,
    answer_of,
    place,
    result_of,
    spelled,
)
from training.talkgrammar.wording import Speaker

VERBS = facts.words(
    "book send find open close start stop create delete buy sell order call cancel move copy check update read write "
    "track show hide lock unlock paint build fix clean cook wash plant feed rent share save print scan mix pack roll"
)
NOUNS = facts.words(
    "table room ticket email message file door window light lamp order taxi flight hotel meeting task note event card "
    "photo video song book parcel user robot garden engine pump machine cake pizza list report game ship train dice "
    "account alarm timer camera printer folder color sound map route shop price"
)


def parameter(s: Speaker, taken: set[str]) -> tuple[Parameter, Value, str]:
    """A parameter that the tool does not have yet, a value for it, and the value as the user writes it."""
    while True:
        name = s.invented() if s.chance(0.3) else s.pick(PARAMETERS)
        if s.chance(0.15):
            name = spelled(s, s.pick(PARAMETERS), s.pick(PARAMETERS))
        if name not in taken:
            break
    required = s.chance(0.8)
    draw = s.rng.random()
    if draw < 0.5:
        value: Value = s.pick(
            (s.name(), place(s), s.invented(), thing_of(s), f"{s.name()} {s.invented().capitalize()}")
        )
        if s.chance(0.1):
            value = str(amount(s))
        return Parameter(name, "string", required), value, str(value)
    if draw < 0.8:
        number = amount(s)
        return Parameter(name, s.pick(("integer", "integer", "number")), required), number, str(number)
    if draw < 0.87:
        real = round(amount(s) / 10, 1)
        return Parameter(name, "number", required), real, json.dumps(real)
    if draw < 0.93:
        truth = s.chance(0.5)
        return Parameter(name, "boolean", required), truth, json.dumps(truth)
    options = tuple(
        {s.pick((*lexicon.COLORS, "small", "big", "slow", "fast", "low", "high", s.invented())) for _ in "abc"}
    )
    chosen = s.pick(sorted(options))
    return Parameter(name, "string", required, tuple(sorted(options))), chosen, chosen


def made_up(s: Speaker) -> Need:
    """A tool that nobody has seen: the request names its verb and noun, and the parameters' values."""
    verb = s.invented() if s.chance(0.15) else s.pick(VERBS)
    noun = s.invented() if s.chance(0.3) else s.pick(NOUNS)
    parameters: list[Parameter] = []
    arguments: dict[str, Value] = {}
    said: list[tuple[str, str]] = []
    for _ in range(s.pick((0, 1, 1, 1, 2, 2, 2, 3))):
        p, value, text = parameter(s, {p.name for p in parameters})
        parameters.append(p)
        if p.required or s.chance(0.5):
            arguments[p.name] = value
            said.append((p.name.replace("_", " ") if s.chance(0.5) else p.name, text))
    description = s.pick((f"{verb} a {noun}", f"{verb} the {noun}", f"{verb}s a {noun}", f"{verb} {noun}")).capitalize()
    tool = Tool(spelled(s, verb, noun), articles(description) + s.pick((".", "")), tuple(parameters))
    lead = s.word(
        "[please|can you|could you|I want to|I need to|] {v} [the|a|my] {n}"
        if s.chance(0.85)
        else "[use|call|run] {t}",
        v=verb,
        n=noun,
        t=tool.name,
    )
    if len(said) == 1 and s.chance(0.5):
        tail = s.pick((f" {said[0][1]}", f" for {said[0][1]}", f": {said[0][1]}", f' "{said[0][1]}"'))
    else:
        joint = s.pick((" ", " ", ": ", " = ", " is "))
        parts = [f"{name}{joint}{value}" for name, value in said]
        between = s.pick((" and ", ", ", " and "))
        tail = (s.pick((" with ", " with ", ", ", " and ")) + between.join(parts)) if parts else ""
    request = articles(lead) + tail + s.pick((".", "", "!", "."))
    result = result_of(s)
    call = Call(arguments, result, answer_of(result))
    return Need("unseen tools", tool, request[0].upper() + request[1:], (call,))
