# SPDX-License-Identifier: Apache-2.0
"""A twin of a tokenizer in which no text can spell a control token.

In the twin every control token is renamed to a spelling made of Unicode noncharacters, which are removed from what is
given to it; merges, normalization and the stripping of spaces beside added tokens stay the same. So text is encoded as
the model's tokenizer would encode it if control tokens did not exist, and control tokens that are wanted are written
under their new names, in one pass. The twin is made when the first text does spell a control token.

A BPE twin shares the model with the original: pieces of text only become a vocabulary entry through merges, and no
merge makes a control token. Other models look whole strings up in their vocabulary (Unigram finds ``</s>``), so there
the vocabulary itself is copied and renamed.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any

import tokenizers
from tokenizers import AddedToken, models

from tramontane.tokenizer.marks import without_marks

_OPEN = "\ufdd2"
_CLOSE = "\ufdd3"


class Guarded:
    """The twin of ``backend`` for a set of control tokens."""

    def __init__(self, backend: tokenizers.Tokenizer, control: Iterable[str]) -> None:
        self._names = {token: f"{_OPEN}{backend.token_to_id(token)}{_CLOSE}" for token in control}
        model = backend.model
        shares = isinstance(model, models.BPE) and not model.ignore_merges
        self._twin = _sharing(backend, self._names) if shares else _copied(backend, self._names)
        # Added tokens are numbered by their order; where that differs from the original, ids are translated back.
        self._moved: dict[int, int] = {}
        for entry in backend.get_added_tokens_decoder().values():
            new = self._twin.token_to_id(self._names.get(entry.content, entry.content))
            old = backend.token_to_id(entry.content)
            if new is not None and old is not None and new != old:
                self._moved[new] = old

    def encode(self, pieces: Iterable[tuple[str, bool]]) -> list[int]:
        """Ids of a text given as (piece, is a control token) in order; nothing is added at its ends."""
        text = "".join(self._names[piece] if control else without_marks(piece) for piece, control in pieces)
        ids: list[int] = self._twin.encode(text, add_special_tokens=False).ids
        return [self._moved.get(token, token) for token in ids] if self._moved else ids


def _sharing(backend: tokenizers.Tokenizer, names: Mapping[str, str]) -> tokenizers.Tokenizer:
    """A tokenizer over the same model, with renamed added tokens."""
    twin = tokenizers.Tokenizer(backend.model)
    if backend.normalizer is not None:
        twin.normalizer = backend.normalizer
    if backend.pre_tokenizer is not None:
        twin.pre_tokenizer = backend.pre_tokenizer
    for _, entry in sorted(backend.get_added_tokens_decoder().items()):
        token = AddedToken(
            names.get(entry.content, entry.content),
            lstrip=entry.lstrip,
            rstrip=entry.rstrip,
            single_word=entry.single_word,
            normalized=entry.normalized,
            special=entry.special,
        )
        if entry.special:
            twin.add_special_tokens([token])
        else:
            twin.add_tokens([token])
    return twin


def _copied(backend: tokenizers.Tokenizer, names: Mapping[str, str]) -> tokenizers.Tokenizer:
    """A copy with tokens renamed among the added tokens and in the model's vocabulary."""
    description: dict[str, Any] = json.loads(backend.to_str())
    for token in description["added_tokens"]:
        token["content"] = names.get(token["content"], token["content"])
    model = description["model"]
    if isinstance(model["vocab"], dict):
        model["vocab"] = {names.get(token, token): i for token, i in model["vocab"].items()}
        if "unk_token" in model:
            model["unk_token"] = names.get(model["unk_token"], model["unk_token"])
    else:
        model["vocab"] = [[names.get(token, token), score] for token, score in model["vocab"]]
    twin = tokenizers.Tokenizer.from_str(json.dumps(description))
    twin.no_truncation()
    twin.no_padding()
    return twin
