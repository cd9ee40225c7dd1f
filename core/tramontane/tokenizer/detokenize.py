# SPDX-License-Identifier: Apache-2.0
"""Incremental decoding: ids in, text out, never half a character.

What is given out, joined, is the text that decoding everything at once gives. Text is held back only while its last
bytes are the beginning of a character that the next token may complete.
"""

from __future__ import annotations

import codecs
from collections.abc import Iterable, Sequence

from tramontane.tokenizer.pieces import PieceRules
from tramontane.tokenizer.tokenizer import Tokenizer

_LONGEST_CHARACTER = 4


class Detokenizer:
    """Decodes one sequence as it grows.

    Args:
        tokenizer: The model's tokenizer.
        prompt_ids: What came before. Its text is not given out, but a text that follows something does not lose its
            leading space, and a character the prompt began is completed.
        skip_special_tokens: Leave out special tokens.
        visible: Special tokens that are not left out.
    """

    def __init__(
        self,
        tokenizer: Tokenizer,
        prompt_ids: Sequence[int] = (),
        *,
        skip_special_tokens: bool = True,
        visible: frozenset[int] = frozenset(),
    ) -> None:
        skipped = tokenizer.special_ids - visible if skip_special_tokens else frozenset()
        if tokenizer.pieces is not None:
            self._way: _ByPieces | _ByWindow = _ByPieces(tokenizer, tokenizer.pieces, prompt_ids, skipped)
        else:
            self._way = _ByWindow(tokenizer, prompt_ids, skipped)

    def push(self, ids: Iterable[int]) -> str:
        """The text that these ids add."""
        return self._way.push(ids)

    def finish(self) -> str:
        """What was held back: U+FFFD for a character that was never completed."""
        return self._way.finish()


class _ByPieces:
    """Tokens are bytes; constant time a token."""

    def __init__(
        self, tokenizer: Tokenizer, rules: PieceRules, prompt_ids: Sequence[int], skipped: frozenset[int]
    ) -> None:
        self._tokenizer = tokenizer
        self._rules = rules
        self._skipped = skipped
        self._first = True
        self._stripped = 0
        self._utf8 = codecs.getincrementaldecoder("utf-8")("replace")
        self.push(self._last_of(prompt_ids))

    def push(self, ids: Iterable[int]) -> str:
        content = b""
        for token in ids:
            if token in self._skipped:
                continue
            content += self._tokenizer.first_bytes(token) if self._first else self._tokenizer.token_bytes(token)
            self._first = False
        if self._stripped < self._rules.strip_count:
            content, self._stripped = self._rules.strip_start(content, self._stripped)
        return self._utf8.decode(content)

    def finish(self) -> str:
        return self._utf8.decode(b"", final=True)

    def _last_of(self, prompt_ids: Sequence[int]) -> Sequence[int]:
        """The end of a prompt: enough of it to know the state it leaves behind."""
        size = 0
        for start in range(len(prompt_ids) - 1, -1, -1):
            token = prompt_ids[start]
            size += len(self._tokenizer.token_bytes(token)) if token not in self._skipped else 0
            if size >= self._rules.strip_count * len(self._rules.strip) + _LONGEST_CHARACTER:
                return prompt_ids[start:]
        return prompt_ids


class _ByWindow:
    """For decoders that look at neighbours: decode everything and give out what is new."""

    def __init__(self, tokenizer: Tokenizer, prompt_ids: Sequence[int], skipped: frozenset[int]) -> None:
        self._tokenizer = tokenizer
        self._skipped = skipped
        self._ids = [token for token in prompt_ids if token not in skipped]
        self._given = len(self._decode())

    def push(self, ids: Iterable[int]) -> str:
        self._ids.extend(token for token in ids if token not in self._skipped)
        text = self._decode()
        settled = text.rstrip("\ufffd")
        new = settled[self._given :]
        self._given = max(self._given, len(settled))
        return new

    def finish(self) -> str:
        rest = self._decode()[self._given :]
        self._given += len(rest)
        return rest

    def _decode(self) -> str:
        return self._tokenizer.decode(self._ids, skip_special_tokens=False)
