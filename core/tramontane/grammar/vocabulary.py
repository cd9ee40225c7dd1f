# SPDX-License-Identifier: Apache-2.0
"""A model's vocabulary as llguidance needs it, in a form that can be sent to another process."""

from __future__ import annotations

import base64
import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Self

import llguidance
from attrs import frozen

if TYPE_CHECKING:
    from tramontane.tokenizer import Tokenizer

_PROBED = 4096
"""Tokens whose bytes are compared before the library's own reading of a ``tokenizer.json`` is trusted."""


@frozen
class Vocabulary:
    """Token ids and their bytes."""

    size: int
    """Ids are below this: the model's vocabulary with its padding."""
    eos_ids: tuple[int, ...]
    tokenizer_json: str | None
    """A ``tokenizer.json`` that llguidance reads itself, so that it tokenizes forced text as the model would; or ..."""
    tokens: tuple[bytes, ...] = ()
    """... the bytes of every token, where it cannot (and where no id ends a text)."""
    special_ids: tuple[int, ...] = ()
    """With ``tokens``: those that are no text."""

    @classmethod
    def of(cls, tokenizer: Tokenizer, size: int) -> Self:
        """The vocabulary of a tokenizer, for a model of ``size`` logits."""
        size = max(size, tokenizer.vocab_size)
        eos = tuple(token for token in tokenizer.eos_ids if token < size)
        if tokenizer.pieces is not None and eos:
            text = tokenizer.backend.to_str()
            if _reads_alike(text, tokenizer):
                return cls(size, eos, text)
        tokens = tuple(tokenizer.token_bytes(token) for token in range(tokenizer.vocab_size))
        return cls(size, eos, None, tokens, tuple(sorted(tokenizer.special_ids)))

    @property
    def mask_size(self) -> int:
        """Bits of a mask: one more than :attr:`size` where no id ends a text, so that llguidance has one that does."""
        return self.size if self.eos_ids else self.size + 1

    def build(self) -> llguidance.LLTokenizer:
        """llguidance's tokenizer: about a second for 150 000 tokens."""
        eos = list(self.eos_ids) or [self.size]
        if self.tokenizer_json is not None:
            return llguidance.LLTokenizer(self.tokenizer_json, n_vocab=self.mask_size, eos_token=eos)
        wrapped = llguidance.TokenizerWrapper(_Bytes(self, eos[0]))
        return llguidance.LLTokenizer(wrapped, n_vocab=self.mask_size, eos_token=eos)

    def dumps(self) -> str:
        """One line of JSON."""
        tokens = [base64.b64encode(token).decode() for token in self.tokens]
        return json.dumps([self.size, self.eos_ids, self.tokenizer_json, tokens, self.special_ids])

    @classmethod
    def loads(cls, line: str) -> Self:
        """What :meth:`dumps` wrote."""
        size, eos, text, tokens, special = json.loads(line)
        return cls(size, tuple(eos), text, tuple(map(base64.b64decode, tokens)), tuple(special))


class _Bytes:
    """What llguidance's ``TokenizerWrapper`` wraps: a vocabulary as bytes."""

    bos_token_id = None

    def __init__(self, vocabulary: Vocabulary, eos_id: int) -> None:
        self.eos_token_id = eos_id
        self.special_token_ids = [*vocabulary.special_ids, *([] if vocabulary.eos_ids else [eos_id])]
        self.tokens = [*vocabulary.tokens, *[b""] * (vocabulary.mask_size - len(vocabulary.tokens))]
        if not vocabulary.eos_ids:
            self.tokens[eos_id] = b"<end>"
        self._ids = {token: number for number, token in reversed(list(enumerate(self.tokens))) if token}
        self._longest = max(map(len, self._ids), default=1)

    def __call__(self, content: bytes) -> Sequence[int]:
        """Longest match first. That need not be the model's own way, so nothing is forced with such a vocabulary."""
        found, start = [], 0
        while start < len(content):
            for end in range(min(len(content), start + self._longest), start, -1):
                token = self._ids.get(content[start:end])
                if token is not None:
                    found.append(token)
                    break
            else:
                end = start + 1
            start = end
        return found


def _reads_alike(text: str, tokenizer: Tokenizer) -> bool:
    """Whether llguidance reads a ``tokenizer.json`` and finds the bytes that the detokenizer will show."""
    try:
        theirs: Any = llguidance.LLTokenizer(text, eos_token=list(tokenizer.eos_ids), slices=[])
    except Exception:  # the library raises plain ValueErrors, and panics as BaseException subclasses of its own
        return False
    step = max(1, tokenizer.vocab_size // _PROBED)
    ids = [token for token in range(0, tokenizer.vocab_size, step) if not theirs.is_special_token(token)]
    return all(theirs.decode_bytes([token]) == tokenizer.token_bytes(token) for token in ids)
