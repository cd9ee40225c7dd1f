# SPDX-License-Identifier: Apache-2.0
"""Held-out prompts with their one right answer or call, and whether a reply is it. Knows nothing of engines."""

from __future__ import annotations

import json
import random
import re
from collections.abc import Callable, Iterator

from attrs import field, frozen

from training.talkgrammar import knowntools, newtools, numbers, questions, smalltalk
from training.talkgrammar.generate import (
    NOT_FOR_TOOLS,
    Message,
    call_turns,
    exchange,
    need,
    offered,
    system,
    toolset,
    turns,
)
from training.talkgrammar.toolbox import Need
from training.talkgrammar.wording import Exchange, Speaker

QUESTIONS = (
    smalltalk.identity,
    smalltalk.politeness,
    smalltalk.persona,
    smalltalk.memory,
    smalltalk.repeat,
    *questions.KINDS,
    numbers.counting,
    numbers.neighbours,
    numbers.arithmetic,
    numbers.comparison,
    smalltalk.unknown,
    smalltalk.needs_a_tool,
)
TOOLS: tuple[tuple[str, Callable[[Speaker], Need]], ...] = (
    ("get_weather", knowntools.weather),
    ("calculator", knowntools.calculator),
    ("two numbers", knowntools.two_numbers),
    ("time", knowntools.clock),
    ("other known tools", knowntools.simple),
    ("unseen tools", newtools.made_up),
)
Calls = tuple[tuple[str, str], ...]


@frozen
class Trial:
    """A conversation up to the assistant's turn, and what it has to say: `answer`, or `calls` (name and arguments)."""

    kind: str
    messages: list[Message]
    answer: str = ""
    calls: Calls = ()
    tools: list[dict[str, object]] = field(factory=list, converter=offered)

    def right(self, text: str, calls: Calls) -> bool:
        """Whether a reply is the expected one; arguments are compared as values."""
        try:
            made = [(name, json.loads(arguments)) for name, arguments in calls]
        except ValueError:
            return False
        expected = [(name, json.loads(arguments)) for name, arguments in self.calls]
        return made == expected and text.strip() == self.answer


def question_trials(draw: Callable[[Speaker], Exchange], count: int) -> Iterator[Trial]:
    """Held-out questions of one kind, no two the same; fewer than `count` where there are no more."""
    s, seen = Speaker(random.Random(f"trial {draw.__name__}")), set()
    for _ in range(count * 200):
        e = draw(s)
        key = (e.system, e.before, e.question)
        if not e.held_out or key in seen:
            continue
        seen.add(key)
        messages = system(e.system) + turns([*e.before, (e.question, e.answer)])
        yield Trial(draw.__name__, messages[:-1], e.answer)
        if len(seen) == count:
            return


def tool_trials(name: str, draw: Callable[[Speaker], Need], count: int) -> Iterator[Trial]:
    """For held-out requests: the call among up to three other tools, and the answer once the results are there."""
    s = Speaker(random.Random(f"trial {name}"))
    for number in range(count):
        n = need(s, held_out=True, draw=draw)
        messages, tools = call_turns(n), toolset(s, [n.tool], number % 4)
        calls = tuple((n.tool.name, json.dumps(call.arguments)) for call in n.calls)
        yield Trial(f"{name}: call", messages[:1], "", calls, tools)
        yield Trial(f"{name}: answer", messages[:-1], str(messages[-1]["content"]), (), tools)


def unfitting_trials(count: int) -> Iterator[Trial]:
    """Held-out questions with tools that do not fit."""
    s = Speaker(random.Random("trial unfitting"))
    for number in range(count):
        e = exchange(s, held_out=True, kinds=NOT_FOR_TOOLS)
        tools = toolset(s, [], 1 + number % 3)
        yield Trial("no fitting tool", turns([(e.question, e.answer)])[:-1], e.answer, (), tools)


@frozen
class StoryTrial(Trial):
    """A story was asked for: it has to be told and to name whom it was asked about."""

    names: tuple[str, ...] = ()

    def right(self, text: str, calls: Calls) -> bool:
        """Whether a reply is a story about the hero."""
        return not calls and len(text.split()) >= 60 and all(text.count(name) >= 2 for name in self.names)


def story_trials(count: int) -> Iterator[Trial]:
    """Held-out requests for a story; where a name was given the hero has it."""
    s = Speaker(random.Random("trial story"))
    for _ in range(count):
        e = exchange(s, held_out=True, kinds=(smalltalk.story,))
        given = re.search(r"(?:named|called|about) ([A-Z][a-z]+)", e.question)
        yield StoryTrial("story", turns([(e.question, "")])[:-1], names=(given.group(1),) if given else ())


def trials(count: int) -> list[Trial]:
    """`count` trials of every kind."""
    found: list[Trial] = []
    for draw in QUESTIONS:
        found += question_trials(draw, count)
    for name, need_of in TOOLS:
        found += tool_trials(name, need_of, count)
    return found + list(unfitting_trials(count))
