# SPDX-License-Identifier: Apache-2.0
"""What each token contributes to a text, as bytes.

A decoder of a ``tokenizer.json`` is a chain of small rules. Nearly all chains in use act on one token at a time and
differ only at the very start of the text; for those, a text is its tokens' bytes joined and read as UTF-8. That gives
incremental decoding in constant time and the byte vocabulary that grammars need. A chain outside that kind
(WordPiece, BPE suffixes, CTC, regular expressions) is reported as ``None`` by :meth:`PieceRules.of`; its owner decodes
through the library.

Decoding malformed bytes follows Unicode's practice (one replacement character per maximal broken part), like Python
and unlike the library's byte fallback, which gives up the whole run of bytes.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

from attrs import frozen

_BYTE_TOKEN = re.compile(r"<0x([0-9A-Fa-f]{2})>")

Rule = Callable[[str], str]


def _byte_alphabet() -> dict[str, int]:
    """GPT-2's printable stand-ins for the 256 bytes: character -> byte."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in printable]
    alphabet = {chr(byte): byte for byte in printable}
    alphabet.update({chr(256 + i): byte for i, byte in enumerate(others)})
    return alphabet


_ALPHABET = _byte_alphabet()


@frozen
class PieceRules:
    """How the text of a token becomes bytes, and what happens at the start of a text."""

    rules: tuple[Rule, ...]
    """Applied to every token, in order."""
    byte_level: bool
    """Tokens are written in GPT-2's byte alphabet."""
    byte_fallback: bool
    """Tokens like ``<0xE4>`` are single bytes."""
    first_rules: tuple[Rule, ...]
    """Applied in place of ``rules`` to the first token of a text."""
    strip: bytes
    """One character that may be removed at the start of a text ..."""
    strip_count: int
    """... at most this many times."""

    @classmethod
    def of(cls, decoder: Mapping[str, Any] | None) -> PieceRules | None:
        """Read a decoder's description; ``None`` if it does not act on one token at a time."""
        if decoder is None:
            return None
        return _Reader().read(decoder["decoders"] if decoder["type"] == "Sequence" else [decoder])

    def bytes_of(self, token: str, first: bool = False) -> bytes:
        """A token's contribution; ``first``: it begins the text."""
        for rule in self.first_rules if first else self.rules:
            token = rule(token)
        if self.byte_fallback and (found := _BYTE_TOKEN.fullmatch(token)):
            return bytes([int(found[1], 16)])
        if self.byte_level and all(character in _ALPHABET for character in token):
            return bytes(_ALPHABET[character] for character in token)
        return token.encode("utf-8")

    def strip_start(self, content: bytes, stripped: int) -> tuple[bytes, int]:
        """Remove what may be removed from the start of a text, ``stripped`` times done already.

        Returns:
            What is left, and how many times it is done now; :attr:`strip_count` once the start is over.
        """
        while stripped < self.strip_count and content.startswith(self.strip):
            content = content[len(self.strip) :]
            stripped += 1
        return content, self.strip_count if content else stripped


class _Reader:
    """Collects the rules of a chain."""

    def __init__(self) -> None:
        self.rules: list[Rule] = []
        self.first_rules: list[Rule] = []
        self.byte_level = False
        self.byte_fallback = False
        self.fused = False
        self.strip = b""
        self.strip_count = 0

    def read(self, chain: list[Mapping[str, Any]]) -> PieceRules | None:
        for step in chain:
            take = getattr(self, f"_{step['type'].lower()}", None)
            if take is None or not take(step):
                return None
        return PieceRules(
            tuple(self.rules),
            self.byte_level,
            self.byte_fallback,
            tuple(self.first_rules),
            self.strip,
            self.strip_count,
        )

    def _both(self, rule: Rule) -> bool:
        """A rule for every token. After bytes were made, or tokens joined, it would act on something else."""
        if self.byte_level or self.byte_fallback or self.fused:
            return False
        self.rules.append(rule)
        self.first_rules.append(rule)
        return True

    def _replace(self, step: Mapping[str, Any]) -> bool:
        pattern, content = step["pattern"], step["content"]
        return "String" in pattern and self._both(lambda token: token.replace(pattern["String"], content))

    def _bytefallback(self, _step: Mapping[str, Any]) -> bool:
        self.byte_fallback = True
        return not self.fused and not self.byte_level

    def _bytelevel(self, _step: Mapping[str, Any]) -> bool:
        self.byte_level = True
        return not self.fused and not self.byte_fallback

    def _fuse(self, _step: Mapping[str, Any]) -> bool:
        self.fused = True
        return True

    def _strip(self, step: Mapping[str, Any]) -> bool:
        if not self.fused or step["stop"] or self.strip_count:
            return False
        self.strip, self.strip_count = step["content"].encode("utf-8"), step["start"]
        return True

    def _metaspace(self, step: Mapping[str, Any]) -> bool:
        mark = step["replacement"]
        drops_first = step.get("prepend_scheme", "always") != "never"
        if step.get("add_prefix_space") is False:
            drops_first = False
        if self.first_rules or not self._both(lambda token: token.replace(mark, " ")):
            return False
        if drops_first:
            self.first_rules = [lambda token: token.replace(mark, "")]
        return True
