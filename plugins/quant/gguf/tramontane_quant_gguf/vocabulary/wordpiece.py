# SPDX-License-Identifier: Apache-2.0
"""WordPiece (``bert``): words by their longest known beginnings.

GGUF marks what begins a word (like SentencePiece, with U+2581); the library marks what continues one (``##``).
"""

from __future__ import annotations

from typing import Any

from tramontane.errors import CheckpointError
from tramontane_quant_gguf.vocabulary.spm import SPACE
from tramontane_quant_gguf.vocabulary.tokens import Kind, Vocabulary, described

CONTINUES = "##"
LONGEST_WORD = 100
"""Characters; longer words are unknown, as in BERT."""


def describe(vocabulary: Vocabulary) -> dict[str, Any]:
    """``tokenizer.json`` of a ``bert`` vocabulary.

    Raises:
        CheckpointError: Tokens are missing, or there is no unknown one.
    """
    unknown = vocabulary.named("unknown_token_id")
    if unknown is None:
        raise CheckpointError(f"{vocabulary.metadata.where} has a bert vocabulary without an unknown token")
    spelled = {_spelled(vocabulary, token): token for token in range(len(vocabulary.tokens))}
    lowercase = vocabulary.flag("normalizer.lowercase", True)
    model = {
        "type": "WordPiece",
        "unk_token": vocabulary.tokens[unknown],
        "continuing_subword_prefix": CONTINUES,
        "max_input_chars_per_word": LONGEST_WORD,
        "vocab": spelled,
    }
    normalizer = {
        "type": "BertNormalizer",
        "clean_text": True,
        "handle_chinese_chars": True,
        "strip_accents": vocabulary.flag("normalizer.strip_accents", lowercase),
        "lowercase": lowercase,
    }
    first = vocabulary.named("cls_token_id")
    first = vocabulary.named("bos_token_id") if first is None else first
    last = vocabulary.named("seperator_token_id")
    return described(
        vocabulary,
        model,
        normalizer=normalizer,
        pre_tokenizer={"type": "BertPreTokenizer"},
        decoder={"type": "WordPiece", "prefix": CONTINUES, "cleanup": True},
        ends=(
            first if vocabulary.flag("add_bos_token", True) else None,
            last if vocabulary.flag("add_sep_token", True) else None,
        ),
    )


def _spelled(vocabulary: Vocabulary, token: int) -> str:
    text = vocabulary.tokens[token]
    if vocabulary.kinds[token] in (Kind.CONTROL, Kind.UNKNOWN):
        return text
    return text[len(SPACE) :] if text.startswith(SPACE) and len(text) > 1 else CONTINUES + text
