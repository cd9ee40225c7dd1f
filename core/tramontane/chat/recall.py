# SPDX-License-Identifier: Apache-2.0
"""Keeps a conversation's tokens the same from turn to turn, so that the prefix cache serves all of its past.

A model need not write a text with the tokens that a tokenizer would choose for it. Rendered into the next prompt and
tokenized anew, such an answer has other tokens than the cache knows, and everything after its first difference would
be computed again. So what was generated is remembered, and where a new prompt goes on from the same tokens with an
answer of the same spelling, the model's own tokens are put in its place.

Spelling means bytes between control tokens and the control tokens themselves: a text that merely looks like a control
token is never taken for one.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence

from attrs import define, field, frozen

MOST_ANSWERS = 256
MOST_TOKENS = 1_000_000
"""Tokens of remembered conversations together."""


@frozen(eq=False)
class _Answer:
    """One answer, and the prompt it followed."""

    prompt: tuple[int, ...]
    ids: tuple[int, ...]
    salt: bytes


@define(eq=False)
class Recall:
    """The answers of one model. Any thread may call it.

    Args:
        spell: The bytes of a token.
        control: Tokens that no text can spell.
    """

    spell: Callable[[int], bytes]
    control: frozenset[int]
    _answers: deque[_Answer] = field(factory=deque)
    _tokens: int = 0
    _lock: threading.Lock = field(factory=threading.Lock)

    def remember(self, prompt: Sequence[int], answer: Sequence[int], salt: bytes = b"") -> None:
        """A model has answered a prompt with these tokens; only callers with the same salt will see that."""
        if not answer:
            return
        new = _Answer(tuple(prompt), tuple(answer), salt)
        with self._lock:
            self._answers.append(new)
            self._tokens += _size(new)
            while len(self._answers) > MOST_ANSWERS or self._tokens > MOST_TOKENS:
                self._tokens -= _size(self._answers.popleft())

    def apply(self, ids: Sequence[int], salt: bytes = b"") -> list[int]:
        """A prompt's tokens with remembered answers in place of other tokens of the same spelling."""
        found = list(ids)
        with self._lock:
            answers = sorted((one for one in self._answers if one.salt == salt), key=lambda one: len(one.prompt))
        for answer in answers:
            start = len(answer.prompt)
            if start >= len(found) or found[start - 1] != answer.prompt[-1]:
                continue
            if found[start : start + len(answer.ids)] == list(answer.ids) or tuple(found[:start]) != answer.prompt:
                continue
            end = self._end(found, start, answer.ids)
            if end is not None:
                found[start:end] = answer.ids
        return found

    def _end(self, ids: Sequence[int], start: int, answer: Sequence[int]) -> int | None:
        """Where in ``ids``, from ``start``, the answer's spelling is complete; ``None`` if it is not there, or ends
        inside a token."""
        at = start
        for text, control in self._segments(answer):
            spelled = bytearray()
            while len(spelled) < len(text) and at < len(ids) and ids[at] not in self.control:
                spelled += self.spell(ids[at])
                at += 1
            if spelled != text:
                return None
            if control is not None:
                if at >= len(ids) or ids[at] != control:
                    return None
                at += 1
        return at

    def _segments(self, ids: Sequence[int]) -> Iterator[tuple[bytes, int | None]]:
        """Tokens as texts with the control token after each; the last text has none."""
        text = bytearray()
        for token in ids:
            if token in self.control:
                yield bytes(text), token
                text.clear()
            else:
                text += self.spell(token)
        yield bytes(text), None


def _size(answer: _Answer) -> int:
    return len(answer.prompt) + len(answer.ids)
