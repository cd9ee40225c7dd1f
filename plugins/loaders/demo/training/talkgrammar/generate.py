# SPDX-License-Identifier: Apache-2.0
"""From a seed to a conversation, and from the command line to a page of them.

Prompts that :func:`training.talkgrammar.wording.is_held_out` names are never in a training conversation.
"""

from __future__ import annotations

import argparse
import json
import random
from collections.abc import Callable, Iterable

from attrs import field, frozen

from training.talkgrammar import knowntools, newtools, numbers, questions, smalltalk
from training.talkgrammar.toolbox import Need, Tool
from training.talkgrammar.wording import Exchange, Speaker, is_held_out

Message = dict[str, object]
PLAIN_SYSTEMS = (
    "You are a helpful assistant.",
    "You are a helpful assistant.",
    "You are a friendly assistant.",
    "Answer briefly.",
    "Be kind and short.",
    "Use simple words.",
)
# How often each kind of question is asked.
KINDS: tuple[Callable[[Speaker], Exchange], ...] = (
    *(questions.KINDS * 2),
    *([numbers.arithmetic] * 7),
    *(numbers.KINDS * 2),
    questions.capitals,
    questions.opposites,
    *([questions.yes_or_no] * 6),
    *([numbers.comparison] * 5),
    numbers.counting,
    *smalltalk.KINDS,
    smalltalk.identity,
    smalltalk.memory,
    smalltalk.persona,
    *([smalltalk.repeat] * 7),
)

KNOWN: tuple[Callable[[Speaker], Need], ...] = (
    *([knowntools.weather] * 2),
    *([knowntools.calculator] * 2),
    knowntools.two_numbers,
)


def offered(tools: Iterable[Tool]) -> list[dict[str, object]]:
    """Tools as OpenAI's API takes them."""
    return [tool.openai() for tool in tools]


@frozen
class Conversation:
    """Messages and tools as OpenAI's API takes them."""

    messages: list[Message] = field(factory=list)
    tools: list[dict[str, object]] = field(factory=list, converter=offered)


def exchange(
    s: Speaker, *, held_out: bool = False, kinds: tuple[Callable[[Speaker], Exchange], ...] = KINDS
) -> Exchange:
    """A question and its answer, from training's side or the held-out side."""
    while True:
        drawn = s.pick(kinds)(s)
        if drawn.held_out == held_out:
            return drawn


def any_need(s: Speaker) -> Need:
    """Any request that a tool fits."""
    draw = s.rng.random()
    if draw < 0.42:
        return s.pick(KNOWN)(s)
    if draw < 0.6:
        return s.pick((knowntools.clock, knowntools.simple, knowntools.simple))(s)
    return newtools.made_up(s)


def need(s: Speaker, *, held_out: bool = False, draw: Callable[[Speaker], Need] = any_need) -> Need:
    """A request that a tool fits, from training's side or the held-out side."""
    while True:
        drawn = draw(s)
        if is_held_out(drawn.request) == held_out:
            return drawn


def turns(pairs: list[tuple[str, str]]) -> list[Message]:
    """Questions and answers as messages."""
    return [
        {"role": role, "content": text}
        for pair in pairs
        for role, text in zip(("user", "assistant"), pair, strict=True)
    ]


def call_turns(n: Need) -> list[Message]:
    """Request, calls, results and answer."""
    calls = [{"type": "function", "function": {"name": n.tool.name, "arguments": c.arguments}} for c in n.calls]
    return [
        {"role": "user", "content": n.request},
        {"role": "assistant", "content": "", "tool_calls": calls},
        *({"role": "tool", "content": call.result} for call in n.calls),
        {"role": "assistant", "content": answer(n)},
    ]


def answer(n: Need) -> str:
    """What is said when all results are there."""
    return " ".join(call.answer for call in n.calls)


def toolset(s: Speaker, wanted: list[Tool], others: int) -> list[Tool]:
    """The wanted tools and some others, in any order, no name twice."""
    found = {tool.name: tool for tool in wanted}
    families = {family(tool) for tool in wanted}
    for _ in range(others):
        tool = need(s).tool
        if tool.name not in found and (family(tool) not in families or not family(tool)):
            found[tool.name] = tool
            families.add(family(tool))
    tools = list(found.values())
    s.rng.shuffle(tools)
    return tools


def family(tool: Tool) -> str:
    """What tools do that would fit the same request; empty if only itself would."""
    text = f"{tool.name} {tool.description}".lower()
    for word in ("weather", "forecast", "time", "search", "song", "user", "note", "stock", "word", "app"):
        if word in text:
            return "weather" if word == "forecast" else word
    if any(p.name in ("expression", "expr", "formula", "input") for p in tool.parameters) or "numbers" in text:
        return "math"
    return "math" if "expression" in text or "math" in text or "calculat" in text else ""


def system(text: str) -> list[Message]:
    """A system message, or none."""
    return [{"role": "system", "content": text}] if text else []


def plain(s: Speaker) -> Conversation:
    """Questions and answers, one to four of them."""
    asked = [exchange(s)]
    for _ in range(s.pick((0, 1, 1, 2, 3))):
        asked.append(exchange(s))
    prompts = [e.system for e in asked if e.system]
    said = prompts[0] if prompts else (s.pick(PLAIN_SYSTEMS) if s.chance(0.15) else "")
    pairs = []
    for e in asked:
        if e.system in ("", said) and not (e.kind == "identity" and said.startswith("You are")):
            pairs += [*e.before, (e.question, e.answer)]
    if s.chance(0.15) and len(asked) > 1 and asked[0].kind == "memory" and asked[0].before:
        # What was said first is asked for last.
        first = asked[0]
        others = [pair for pair in pairs if pair not in ((first.question, first.answer), *first.before)]
        pairs = [*first.before, *others, (first.question, first.answer)]
    return Conversation(system(said) + turns(pairs))


def compatible(one: Tool, other: Tool) -> bool:
    """Whether no request fits both."""
    return one.name != other.name and (not family(one) or family(one) != family(other))


def with_tools(s: Speaker) -> Conversation:
    """One or two requests for tools among others, at times with plain questions between them."""
    needs: list[Need] = []
    for _ in range(s.pick((1, 1, 2, 2))):
        drawn = need(s)
        if all(compatible(drawn.tool, other.tool) for other in needs):
            needs.append(drawn)
    messages: list[Message] = []
    for drawn in needs:
        if s.chance(0.12):
            e = exchange(s, kinds=BETWEEN_TOOLS)
            messages += turns([(e.question, e.answer)])
        messages += call_turns(drawn)
    if s.chance(0.12):
        e = exchange(s, kinds=BETWEEN_TOOLS)
        messages += turns([(e.question, e.answer)])
    said = s.pick(PLAIN_SYSTEMS) if s.chance(0.2) else ""
    tools = toolset(s, [n.tool for n in needs], s.pick((0, 0, 1, 2)))
    return Conversation(system(said) + messages, tools)


BETWEEN_TOOLS = (questions.colors, questions.opposites, questions.capitals, smalltalk.politeness)
NOT_FOR_TOOLS = (*questions.KINDS, smalltalk.identity, smalltalk.politeness, smalltalk.repeat, numbers.counting)


def without_use(s: Speaker) -> Conversation:
    """Tools are there, and none fits: a plain answer, or the word that no tool does that."""
    tools = toolset(s, [], s.pick((1, 1, 2, 3)))
    if s.chance(0.35):
        other = need(s)
        # Sums are left out: some of them the model knows.
        if other.kind != "calculator" and all(compatible(other.tool, tool) for tool in tools):
            return Conversation(turns([(other.request, smalltalk.NO_TOOL)]), tools)
    e = exchange(s, kinds=NOT_FOR_TOOLS)
    pairs = [(e.question, e.answer)]
    if s.chance(0.4):
        again = exchange(s, kinds=NOT_FOR_TOOLS)
        pairs.append((again.question, again.answer))
    return Conversation(turns(pairs), tools)


def a_story(s: Speaker) -> Conversation:
    """A story that was asked for."""
    e = exchange(s, kinds=(smalltalk.story,))
    return Conversation(turns([(e.question, e.answer)]))


def conversation(seed: int) -> Conversation:
    """The conversation of `seed`: always the same for the same seed and the same grammar."""
    s = Speaker(random.Random(f"talk {seed}"))
    draw = s.rng.random()
    if draw < 0.48:
        return plain(s)
    if draw < 0.86:
        return with_tools(s)
    if draw < 0.97:
        return without_use(s)
    return a_story(s)


def main() -> None:
    """Print conversations: ``python -m training.talkgrammar.generate --seed 7 --count 3``."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--count", type=int, default=3)
    options = parser.parse_args()
    for seed in range(options.seed, options.seed + options.count):
        made = conversation(seed)
        for tool in made.tools:
            print("tool", json.dumps(tool["function"]))
        for message in made.messages:
            print(f"{message['role']}: {message['content']}", *(json.dumps(c) for c in message.get("tool_calls", ())))
        print("---")


if __name__ == "__main__":
    main()
