# SPDX-License-Identifier: Apache-2.0
"""What every kind of vocabulary has: tokens with types, and the ids that mean something."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from enum import IntEnum
from functools import cached_property
from types import MappingProxyType
from typing import Any

import numpy as np
from attrs import define

from tramontane.errors import CheckpointError
from tramontane_quant_gguf.reading import Metadata

PREFIX = "tokenizer.ggml"
NAMED: Mapping[str, str] = MappingProxyType(
    {
        "bos_token": "bos_token_id",
        "eos_token": "eos_token_id",
        "unk_token": "unknown_token_id",
        "sep_token": "seperator_token_id",  # the format spells it so
        "pad_token": "padding_token_id",
        "cls_token": "cls_token_id",
        "mask_token": "mask_token_id",
    }
)
"""Special tokens by the names that templates use, and their keys."""
MAX_TOKENS = 2**21


class Kind(IntEnum):
    """What a token is."""

    NORMAL = 1
    UNKNOWN = 2
    CONTROL = 3
    USER_DEFINED = 4
    UNUSED = 5
    BYTE = 6


@define(eq=False, slots=False)
class Vocabulary:
    """The vocabulary of a file, read when asked for."""

    metadata: Metadata

    @property
    def model(self) -> str:
        """Which algorithm: ``llama``, ``gpt2``, ``bert``, ``t5`` ..."""
        return self.metadata.text(f"{PREFIX}.model") or "none"

    @cached_property
    def tokens(self) -> list[str]:
        """All tokens by id. Empty ones and repetitions get names of their own: a token has one id.

        Raises:
            CheckpointError: There are none, or too many.
        """
        stored = self.metadata.strings(f"{PREFIX}.tokens")
        if stored is None or not len(stored):
            raise CheckpointError(f"{self.metadata.where} has no vocabulary")
        if len(stored) > MAX_TOKENS:
            raise CheckpointError(f"{self.metadata.where}: a vocabulary of {len(stored)} tokens is over {MAX_TOKENS}")
        found = list(stored)
        seen: set[str] = set()
        for token, text in enumerate(found):
            if not text or text in seen:
                found[token] = f"[{'REPEATED' if text else 'EMPTY'}_{token}]"
            seen.add(found[token])
        return found

    @cached_property
    def kinds(self) -> list[int]:
        """What each token is; all normal where the file does not say."""
        stored = self.metadata.wholes(f"{PREFIX}.token_type")
        if stored is None:
            return [Kind.NORMAL] * len(self.tokens)
        return [int(kind) for kind in self._per_token(stored, "token_type")]

    @cached_property
    def scores(self) -> list[float]:
        """A score per token.

        Raises:
            CheckpointError: There are none, or they are no finite numbers.
        """
        key = f"{PREFIX}.scores"
        stored = self.metadata.reals(key) if key in self.metadata else None
        if stored is None:
            raise CheckpointError(f"{self.metadata.where} has a vocabulary without {key}, which its kind needs")
        if not bool(np.isfinite(stored).all()):
            raise CheckpointError(f"{self.metadata.where}: {key} holds values that are no finite numbers")
        return [float(score) for score in self._per_token(stored, "scores")]

    def _per_token(self, values: Any, what: str) -> Any:
        if len(values) < len(self.tokens):
            raise CheckpointError(
                f"{self.metadata.where}: {PREFIX}.{what} has {len(values)} values for {len(self.tokens)} tokens"
            )
        return values[: len(self.tokens)]

    def ids_of(self, *kinds: Kind) -> Iterator[int]:
        """Ids of the tokens of these kinds."""
        return (token for token, kind in enumerate(self.kinds) if kind in kinds)

    def named(self, key: str) -> int | None:
        """The id of a special token by its key; ``None`` where there is none, or it lies outside the vocabulary."""
        token = self.metadata.whole(f"{PREFIX}.{key}")
        return token if token is not None and token < len(self.tokens) else None

    def special_names(self) -> dict[str, str]:
        """``{"bos_token": "<s>", ...}``."""
        found = {name: self.named(key) for name, key in NAMED.items()}
        return {name: self.tokens[token] for name, token in found.items() if token is not None}

    def flag(self, key: str, default: bool) -> bool:
        """A setting that is true or false."""
        stated = self.metadata.flag(f"{PREFIX}.{key}")
        return default if stated is None else stated

    def added(self) -> list[dict[str, Any]]:
        """Tokens that are found in a text before anything else is done to it: control tokens and user-defined ones."""
        return [
            {
                "id": token,
                "content": self.tokens[token],
                "single_word": False,
                "lstrip": False,
                "rstrip": False,
                "normalized": False,
                "special": self.kinds[token] != Kind.USER_DEFINED,
            }
            for token in self.ids_of(Kind.CONTROL, Kind.UNKNOWN, Kind.USER_DEFINED)
        ]


def described(
    vocabulary: Vocabulary,
    model: Mapping[str, Any],
    *,
    normalizer: Mapping[str, Any] | None,
    pre_tokenizer: Mapping[str, Any] | None,
    decoder: Mapping[str, Any],
    ends: tuple[int | None, int | None],
) -> dict[str, Any]:
    """The content of a ``tokenizer.json``.

    Args:
        vocabulary: Gives the added tokens.
        model: The algorithm and its tables.
        normalizer, pre_tokenizer, decoder: As the ``tokenizers`` library describes them.
        ends: Ids put before and after a text.
    """
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": vocabulary.added(),
        "normalizer": normalizer,
        "pre_tokenizer": pre_tokenizer,
        "post_processor": _template(vocabulary, ends),
        "decoder": decoder,
        "model": model,
    }


def _template(vocabulary: Vocabulary, ends: tuple[int | None, int | None]) -> dict[str, Any] | None:
    if ends == (None, None):
        return None
    texts = [None if token is None else vocabulary.tokens[token] for token in ends]
    single: list[dict[str, Any]] = [{"Sequence": {"id": "A", "type_id": 0}}]
    pair = [*single, {"Sequence": {"id": "B", "type_id": 0}}]
    for place, text in zip((0, None), texts, strict=True):
        if text is not None:
            for pieces in (single, pair):
                pieces.insert(len(pieces) if place is None else place, {"SpecialToken": {"id": text, "type_id": 0}})
    special = {
        text: {"id": text, "ids": [token], "tokens": [text]}
        for text, token in zip(texts, ends, strict=True)
        if text is not None
    }
    return {"type": "TemplateProcessing", "single": single, "pair": pair, "special_tokens": special}
