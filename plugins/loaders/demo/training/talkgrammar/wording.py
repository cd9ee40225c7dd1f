# SPDX-License-Identifier: Apache-2.0
"""The speaker: draws words, names and wordings, and decides which prompts are never trained on.

Owns the border between training and evaluation: a prompt whose checksum is a multiple of `HELD_OUT_EVERY` is held out,
however it is capitalized or punctuated. So every held-out prompt is a new wording of something known, or something
made up that was never seen.
"""

from __future__ import annotations

import random
import re
import zlib
from collections.abc import Sequence
from typing import TypeVar

from attrs import frozen

from training.storygrammar import lexicon
from training.storygrammar.engine import Named, Tale

Item = TypeVar("Item")

HELD_OUT_EVERY = 16


def is_held_out(prompt: str) -> bool:
    """Whether training never sees this prompt of a user."""
    return zlib.crc32(" ".join(re.findall(r"\w+|[+*/-]", prompt.lower())).encode()) % HELD_OUT_EVERY == 0


@frozen
class Exchange:
    """A question and its one right answer. `before` are earlier turns that it needs, `system` a system prompt."""

    kind: str
    question: str
    answer: str
    before: tuple[tuple[str, str], ...] = ()
    system: str = ""

    @property
    def held_out(self) -> bool:
        """Whether training never sees this question with what it builds on."""
        return is_held_out(" ".join((self.system, *(said for said, _ in self.before), self.question)))


class Speaker:
    """Draws everything from one random generator, so a seed gives the same conversation for ever."""

    def __init__(self, rng: random.Random) -> None:
        self.rng = rng

    def pick(self, items: Sequence[Item]) -> Item:
        """One of `items`, all equally likely."""
        return items[int(self.rng.random() * len(items))]

    def chance(self, probability: float) -> bool:
        """True with the given probability."""
        return self.rng.random() < probability

    def number(self, low: int, high: int) -> int:
        """A whole number from `low` to `high`, both included."""
        return low + int(self.rng.random() * (high - low + 1))

    def word(self, template: str, **slots: object) -> str:
        """A template of the story grammar (``[one|other] {slot}``) with its choices made and its slots filled."""
        tale = Tale(self.rng, {name: Named(str(value), {}) for name, value in slots.items()})
        return " ".join(tale.expand(template).split())

    def ask(self, *templates: str, **slots: object) -> str:
        """One of the templates as a user types it: mostly properly, sometimes carelessly."""
        text = self.word(self.pick(templates), **slots)
        text = text[0].upper() + text[1:]
        draw = self.rng.random()
        if draw < 0.08:
            return text[0].lower() + text[1:].rstrip("?.!")
        if draw < 0.14:
            return text.rstrip("?.!")
        if draw < 0.18:
            return self.pick(("Hi! ", "Hello. ", "Please answer: ", "OK. ")) + text
        return text

    def invented(self) -> str:
        """A lower-case word that does not exist, so that it can only be copied."""
        count = 2 + int(self.chance(0.4))
        return "".join(self.pick(lexicon.SYLLABLES) for _ in range(count)) + self.pick(lexicon.NAME_ENDINGS)

    def name(self) -> str:
        """A first name; every third does not exist."""
        if self.chance(0.35):
            return self.invented().capitalize()
        return self.pick(self.pick((lexicon.GIRLS, lexicon.BOYS, lexicon.PETS)))
