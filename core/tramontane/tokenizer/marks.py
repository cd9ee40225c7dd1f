# SPDX-License-Identifier: Apache-2.0
"""Marks around control tokens that a user's text spells, so that they stay text in a rendered chat.

A chat template joins the user's words and its own control tokens into one string, in which ``<|im_end|>`` looks the
same whoever wrote it. So before rendering, every control token that a user's string spells is put between two marks;
template logic that searches or splits the text works as before. After rendering, a control token between marks is
text, and one without is the template's. Where a user's string ends or begins with a part of a control token, a lone
mark keeps it from being completed by its neighbour. (A template that cuts a user's text at a control token and puts its
own in exactly that place makes the same string again; it is then text.)

The marks are Unicode noncharacters (reserved for internal use, never interchanged); they are removed from users' text.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import lru_cache
from typing import Any

from attrs import frozen

OPEN = "\ufdd0"
CLOSE = "\ufdd1"

_NONCHARACTERS = re.compile("[\ufdd0-\ufdef]")


def without_marks(text: str) -> str:
    """The text without any mark."""
    return _NONCHARACTERS.sub("", text) if _NONCHARACTERS.search(text) else text


@frozen
class Marker:
    """Marks and finds the control tokens of one vocabulary."""

    control: re.Pattern[str]
    """Any control token, longest first, in any case: a template may change it."""
    heads: frozenset[str]
    """Proper beginnings of control tokens."""
    tails: frozenset[str]
    longest: int
    found: re.Pattern[str]
    """In a marked text: (1) a marked token, (2) a token without marks; or a lone mark."""

    @staticmethod
    @lru_cache(maxsize=16)
    def of(control: frozenset[str]) -> Marker:
        """A marker for these control tokens."""
        tokens = sorted(control - {""})
        any_token = _any_of(tokens)
        return Marker(
            re.compile(any_token, re.IGNORECASE),
            frozenset(token[:i] for token in tokens for i in range(1, len(token))),
            frozenset(token[i:] for token in tokens for i in range(1, len(token))),
            max(map(len, tokens), default=0),
            re.compile(f"{OPEN}({any_token}){CLOSE}|({any_token})|[{OPEN}{CLOSE}]"),
        )

    def mark(self, text: str) -> str:
        """A user's text with its control tokens marked. Bare words pass: templates compare them, like roles."""
        text = without_marks(text)
        if not text or text.isidentifier():
            return text
        marked = self.control.sub(lambda match: f"{OPEN}{match[0]}{CLOSE}", text)
        if any(text[:i] in self.tails for i in range(1, min(self.longest, len(text) + 1))):
            marked = CLOSE + marked
        if any(text[-i:] in self.heads for i in range(1, min(self.longest, len(text) + 1))):
            marked = marked + OPEN
        return marked

    def mark_all(self, value: Any) -> Any:
        """The same for every string in plain data, keys included."""
        if isinstance(value, str):
            return self.mark(value)
        if isinstance(value, dict):
            return {self.mark(key): self.mark_all(item) for key, item in value.items()}
        if isinstance(value, list):
            return [self.mark_all(item) for item in value]
        return value

    def split(self, marked: str) -> list[tuple[str, bool]]:
        """A rendered chat as (piece, is a control token) in order, marks removed."""
        pieces: list[tuple[str, bool]] = []
        text: list[str] = []
        at = 0
        for match in self.found.finditer(marked):
            text.append(marked[at : match.start()])
            at = match.end()
            if match[1] is not None:
                text.append(match[1])
            elif match[2] is not None:
                pieces.append(("".join(text), False))
                pieces.append((match[2], True))
                text = []
        text.append(marked[at:])
        pieces.append(("".join(text), False))
        return [(piece, control) for piece, control in pieces if piece]


def _any_of(tokens: Iterable[str]) -> str:
    """A pattern for any of these strings, the longest first, that shares their beginnings: some vocabularies have a
    thousand control tokens, and a plain alternation would try each of them at every ``<``."""
    root: dict[str, Any] = {}
    for token in tokens:
        node = root
        for character in token:
            node = node.setdefault(character, {})
        node[""] = {}
    return _pattern(root) if root else "(?!)"


def _pattern(node: dict[str, Any]) -> str:
    prefix = ""
    while len(node) == 1 and "" not in node:
        ((character, node),) = node.items()
        prefix += re.escape(character)
    branches = [re.escape(character) + _pattern(child) for character, child in node.items() if character]
    if not branches:
        return prefix
    return f"{prefix}(?:{'|'.join(branches)}){'?' if '' in node else ''}"
