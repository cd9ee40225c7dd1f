# SPDX-License-Identifier: Apache-2.0
"""BPE with merges in the file: ``gpt2`` vocabularies in bytes, and those with marked spaces (Gemma 4)."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from typing import Any

from tramontane.errors import CheckpointError
from tramontane_quant_gguf.vocabulary.pre import EOS_AFTER, PRE, Pre
from tramontane_quant_gguf.vocabulary.spm import spaces_marked, spaces_restored
from tramontane_quant_gguf.vocabulary.tokens import PREFIX, Vocabulary, described

_log = logging.getLogger(__name__)


def describe(vocabulary: Vocabulary) -> dict[str, Any]:
    """``tokenizer.json`` of a ``gpt2`` (or ``gemma4``) vocabulary.

    Raises:
        CheckpointError: Tokens or merges are missing or wrong, or its words are cut in a way that is not known.
    """
    name = _pre_name(vocabulary)
    pre = PRE.get(name)
    if pre is None:
        raise CheckpointError(
            f"{vocabulary.metadata.where} cuts words in the way {name!r}, which is not known here",
            hint="give the original model's tokenizer with --tokenizer; a newer tramontane-quant-gguf may know it",
        )
    unknown = vocabulary.named("unknown_token_id")
    model = {
        "type": "BPE",
        "dropout": None,
        "unk_token": None if pre.byte_level or unknown is None else vocabulary.tokens[unknown],
        "continuing_subword_prefix": None,
        "end_of_word_suffix": None,
        "fuse_unk": not pre.byte_level,
        "byte_fallback": not pre.byte_level,
        "ignore_merges": pre.whole_words,
        "vocab": {text: token for token, text in enumerate(vocabulary.tokens)},
        "merges": list(_merges(vocabulary)),
    }
    return described(
        vocabulary,
        model,
        normalizer=None if pre.byte_level else spaces_marked(vocabulary.flag("add_space_prefix", False)),
        pre_tokenizer=_cut(pre),
        decoder=_BYTES if pre.byte_level else spaces_restored(False),
        ends=_ends(vocabulary, name, pre),
    )


_BYTES = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": False, "use_regex": False}


def _pre_name(vocabulary: Vocabulary) -> str:
    if vocabulary.model == "gemma4":
        return "gemma4"
    name = vocabulary.metadata.text(f"{PREFIX}.pre")
    if name:
        return name
    _log.warning("%s does not say how it cuts words; its text may be read oddly", vocabulary.metadata.where)
    return "default"


def _cut(pre: Pre) -> dict[str, Any]:
    """The pre-tokenizer: each pattern on what the one before left, then bytes as GPT-2 writes them."""
    cuts: list[dict[str, Any]] = [
        {"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated", "invert": False}
        for pattern in pre.patterns
    ]
    if pre.byte_level:
        cuts.append(_BYTES)
    return {"type": "Sequence", "pretokenizers": cuts}


def _merges(vocabulary: Vocabulary) -> Iterator[tuple[str, str]]:
    """Pairs in order. A merge whose parts or whole are no tokens is left out: the library would refuse all of them."""
    stored = vocabulary.metadata.strings(f"{PREFIX}.merges")
    if stored is None:
        raise CheckpointError(f"{vocabulary.metadata.where} has a {vocabulary.model} vocabulary without merges")
    known = set(vocabulary.tokens)
    for line in stored:
        at = line.find(" ", 1)  # a part may be a space only where it is the first character
        first, second = line[:at], line[at + 1 :]
        if at > 0 and first in known and second in known and first + second in known:
            yield first, second


def _ends(vocabulary: Vocabulary, name: str, pre: Pre) -> tuple[int | None, int | None]:
    first = vocabulary.named("bos_token_id")
    first = vocabulary.named("cls_token_id") if first is None else first
    separated = vocabulary.flag("add_sep_token", name in EOS_AFTER)
    last = vocabulary.named("seperator_token_id") if separated else None
    if last is None and vocabulary.flag("add_eos_token", False):
        last = vocabulary.named("eos_token_id")
    opening = vocabulary.flag("add_bos_token", pre.adds_bos or name in EOS_AFTER)
    return (first if opening else None), last
