# SPDX-License-Identifier: Apache-2.0
"""SentencePiece vocabularies: BPE by scores (``llama``), and unigrams (``t5``).

GGUF keeps scores instead of merges. Of two neighbours the pair whose union has the highest score is joined first, so
the list of all pairs that make a token, by falling score of that token, is the list of merges.
"""

from __future__ import annotations

import base64
from typing import Any

from tramontane.errors import CheckpointError
from tramontane_quant_gguf.vocabulary.tokens import PREFIX, Kind, Vocabulary, described

SPACE = "\u2581"
"""Stands for a space."""


def describe_bpe(vocabulary: Vocabulary) -> dict[str, Any]:
    """``tokenizer.json`` of a ``llama`` vocabulary.

    Raises:
        CheckpointError: Tokens or scores are missing or wrong.
    """
    prefixed = vocabulary.flag("add_space_prefix", True)
    unknown = vocabulary.named("unknown_token_id")
    unknown = next(vocabulary.ids_of(Kind.UNKNOWN), None) if unknown is None else unknown
    model = {
        "type": "BPE",
        "dropout": None,
        "unk_token": None if unknown is None else vocabulary.tokens[unknown],
        "continuing_subword_prefix": None,
        "end_of_word_suffix": None,
        "fuse_unk": True,
        "byte_fallback": True,
        "ignore_merges": False,
        "vocab": {text: token for token, text in enumerate(vocabulary.tokens)},
        "merges": merges_of(vocabulary),
    }
    return described(
        vocabulary,
        model,
        normalizer=spaces_marked(prefixed),
        pre_tokenizer=None,
        decoder=spaces_restored(prefixed),
        ends=_ends(vocabulary, bos=True, eos=False),
    )


def spaces_marked(prefixed: bool) -> dict[str, Any]:
    """Spaces written as :data:`SPACE`, one of them before the text."""
    replace = {"type": "Replace", "pattern": {"String": " "}, "content": SPACE}
    prepend = [{"type": "Prepend", "prepend": SPACE}] if prefixed else []
    return {"type": "Sequence", "normalizers": [*prepend, replace]}


def spaces_restored(prefixed: bool) -> dict[str, Any]:
    """The inverse, for tokens; bytes are joined first."""
    replace = {"type": "Replace", "pattern": {"String": SPACE}, "content": " "}
    strip = [{"type": "Strip", "content": " ", "start": 1, "stop": 0}] if prefixed else []
    return {"type": "Sequence", "decoders": [replace, {"type": "ByteFallback"}, {"type": "Fuse"}, *strip]}


def _ends(vocabulary: Vocabulary, *, bos: bool, eos: bool) -> tuple[int | None, int | None]:
    """Ids put around a text; the arguments are the kind's defaults."""
    return (
        vocabulary.named("bos_token_id") if vocabulary.flag("add_bos_token", bos) else None,
        vocabulary.named("eos_token_id") if vocabulary.flag("add_eos_token", eos) else None,
    )


def merges_of(vocabulary: Vocabulary) -> list[tuple[str, str]]:
    """Every way to make a token from two others, best token first; of one token, by the parts' ids."""
    scores = vocabulary.scores
    joined = [token for token in vocabulary.ids_of(Kind.NORMAL, Kind.UNUSED) if len(vocabulary.tokens[token]) > 1]
    ids = {vocabulary.tokens[token]: token for token in vocabulary.ids_of(Kind.NORMAL, Kind.UNUSED, Kind.USER_DEFINED)}
    joined.sort(key=lambda token: -scores[token])
    merges: list[tuple[str, str]] = []
    for token in joined:
        text = vocabulary.tokens[token]
        pairs = [(text[:at], text[at:]) for at in range(1, len(text)) if text[:at] in ids and text[at:] in ids]
        merges += sorted(pairs, key=lambda pair: (ids[pair[0]], ids[pair[1]]))
    return merges


def describe_unigram(vocabulary: Vocabulary) -> dict[str, Any]:
    """``tokenizer.json`` of a ``t5`` vocabulary.

    Raises:
        CheckpointError: Tokens or scores are missing or wrong, or the character map is.
    """
    prefixed = vocabulary.flag("add_space_prefix", True)
    unknown = vocabulary.named("unknown_token_id")
    if unknown is None:
        raise CheckpointError(f"{vocabulary.metadata.where} has a t5 vocabulary without an unknown token")
    steps: list[dict[str, Any]] = []
    mapping = vocabulary.metadata.values.get(f"{PREFIX}.precompiled_charsmap")
    if mapping is not None:
        if getattr(mapping, "dtype", None) is None or mapping.dtype.itemsize != 1:
            raise CheckpointError(f"{vocabulary.metadata.where}: {PREFIX}.precompiled_charsmap must be bytes")
        encoded = base64.b64encode(mapping.tobytes()).decode("ascii")
        steps.append({"type": "Precompiled", "precompiled_charsmap": encoded})
    if vocabulary.flag("remove_extra_whitespaces", True):
        steps.append({"type": "Strip", "strip_left": True, "strip_right": True})
        steps.append({"type": "Replace", "pattern": {"Regex": " {2,}"}, "content": " "})
    metaspace = {
        "type": "Metaspace",
        "replacement": SPACE,
        "prepend_scheme": "always" if prefixed else "never",
        "split": True,
    }
    model = {
        "type": "Unigram",
        "unk_id": unknown,
        "vocab": [[text, score] for text, score in zip(vocabulary.tokens, vocabulary.scores, strict=True)],
        "byte_fallback": any(True for _ in vocabulary.ids_of(Kind.BYTE)),
    }
    return described(
        vocabulary,
        model,
        normalizer={"type": "Sequence", "normalizers": steps} if steps else None,
        pre_tokenizer=metaspace,
        decoder=metaspace,
        ends=_ends(vocabulary, bos=False, eos=True),
    )
