# SPDX-License-Identifier: Apache-2.0
"""The teller: expands templates with names, pronouns and articles that agree, and collects the sentences.

A template is plain text with two additions. ``[red|blue|]`` picks one alternative (they nest, and may be empty);
``{role}`` and ``{role.form}`` insert what the tale has bound, ``{a role}`` puts the right article before it.
Never decides what happens in a story: that is the plots' business.
"""

from __future__ import annotations

import random
import re
from collections.abc import Sequence
from functools import cache
from typing import TypeVar

from attrs import define, field, frozen

Item = TypeVar("Item")

PRONOUNS = {
    "he": {"he": "he", "him": "him", "his": "his", "himself": "himself"},
    "she": {"he": "she", "him": "her", "his": "her", "himself": "herself"},
}


@frozen
class Named:
    """Something with several written forms: ``{role}`` gives `text`, ``{role.form}`` one of `forms`."""

    text: str
    forms: dict[str, str]


def character(name: str, noun: str, kind: str, pronoun: str, **more: str) -> Named:
    """A person or animal: `noun` is the description ("small gray mouse"), `kind` its last word ("mouse")."""
    return Named(name, {**PRONOUNS[pronoun], "noun": noun, "kind": kind, "the": f"the {kind}", "call": name, **more})


# A node is literal text, ("choice", alternatives) or ("slot", article, role, form).
Node = str | tuple[str, tuple["Nodes", ...]] | tuple[str, str, str, str]
Nodes = tuple[Node, ...]

_TOKEN = re.compile(r"\[|\]|\||\{(a )?([a-z_0-9]+)(?:\.([a-z_]+))?\}")


@cache
def parse(template: str) -> Nodes:
    """The template as a tree. Raises ValueError if brackets do not match or a brace is not a slot."""
    stack: list[list[list[Node]]] = [[[]]]
    end = 0
    for token in _TOKEN.finditer(template):
        if token.start() > end:
            stack[-1][-1].append(template[end : token.start()])
        end = token.end()
        symbol = token.group(0)
        if symbol == "[":
            stack.append([[]])
        elif symbol == "|":
            stack[-1].append([])
        elif symbol == "]":
            if len(stack) == 1:
                raise ValueError(f"template does not parse: {template!r}")
            alternatives = tuple(tuple(nodes) for nodes in stack.pop())
            stack[-1][-1].append(("choice", alternatives))
        else:
            stack[-1][-1].append(("slot", token.group(1) or "", token.group(2), token.group(3) or ""))
    if template[end:]:
        stack[-1][-1].append(template[end:])
    text = "".join(node for node in stack[0][0] if isinstance(node, str))
    if len(stack) != 1 or len(stack[0]) != 1 or "{" in text or "}" in text:
        raise ValueError(f"template does not parse: {template!r}")
    return tuple(stack[0][0])


_ARTICLE = re.compile(r"\b([aA]) (?=[aeiou])")


def with_article(noun: str) -> str:
    """`noun` after "a"; `articles` makes it "an" where needed."""
    return f"a {noun}"


def articles(text: str) -> str:
    """Turn "a" into "an" before a vowel. The lexicon holds no word whose spelling misleads about its sound."""
    return _ARTICLE.sub(r"\1n ", text)


_SENTENCE_START = re.compile(r'(^"?|[.!?] "?|\." |\^)([a-z])')


def capitalize(text: str) -> str:
    """Upper-case first letters of sentences; after ``!"``, where "said" may follow, only those marked by ``^``."""
    return _SENTENCE_START.sub(lambda match: match.group(1).removesuffix("^") + match.group(2).upper(), text)


@define
class Tale:
    """One story being told. Everything random comes from `rng`, so a seed gives the same story for ever."""

    rng: random.Random
    bound: dict[str, Named] = field(factory=dict)
    paragraphs: list[list[str]] = field(factory=lambda: [[]])
    today: bool = False
    """The tale begins on the day of its events, so nobody says "one day" again."""

    def pick(self, items: Sequence[Item]) -> Item:
        """One of `items`, all equally likely."""
        return items[int(self.rng.random() * len(items))]

    def chance(self, probability: float) -> bool:
        """True with the given probability."""
        return self.rng.random() < probability

    def bind(self, **roles: str | Named) -> None:
        """Name things for later templates. Text is expanded now, so that it stays the same through the story."""
        for role, value in roles.items():
            self.bound[role] = value if isinstance(value, Named) else Named(self.expand(value), {})

    def expand(self, template: str) -> str:
        """The template with its choices made and its slots filled."""
        return self._expand(parse(template))

    def _expand(self, nodes: Nodes) -> str:
        out: list[str] = []
        for node in nodes:
            if isinstance(node, str):
                out.append(node)
            elif node[0] == "choice":
                out.append(self._expand(self.pick(node[1])))  # type: ignore[arg-type]
            else:
                _, article, role, form = node  # type: ignore[misc]
                named = self.bound[role]  # type: ignore[index]
                text = named.forms[form] if form else named.text  # type: ignore[index]
                out.append(with_article(text) if article else text)
        return "".join(out)

    def say(self, *templates: str) -> None:
        """Tell one of the templates, chosen at random."""
        sentence = " ".join(self.expand(self.pick(templates)).split())
        self.paragraphs[-1].append(articles(capitalize(sentence).replace("^", "")))

    def maybe(self, probability: float, *templates: str) -> None:
        """Tell one of the templates, or nothing."""
        if self.chance(probability):
            self.say(*templates)

    def turn(self) -> None:
        """Start a new paragraph: the story turns."""
        if self.paragraphs[-1]:
            self.paragraphs.append([])

    def text(self) -> str:
        """The story so far."""
        return "\n\n".join(" ".join(sentences) for sentences in self.paragraphs if sentences)
