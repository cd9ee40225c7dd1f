# SPDX-License-Identifier: Apache-2.0
"""The files that a tokenizer is opened from, made from metadata when they are first asked for."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Any

from tramontane.checkpoint import Files
from tramontane.errors import CheckpointError
from tramontane_quant_gguf.reading import Metadata
from tramontane_quant_gguf.vocabulary import bpe, spm, wordpiece
from tramontane_quant_gguf.vocabulary.tokens import Vocabulary

TEMPLATE, TEMPLATES = "tokenizer.chat_template", "tokenizer.chat_templates"
WHOLE = "tokenizer.huggingface.json"
"""Some files hold a whole ``tokenizer.json``."""
MODELS: Mapping[str, Callable[[Vocabulary], dict[str, Any]]] = MappingProxyType(
    {
        "llama": spm.describe_bpe,
        "gpt2": bpe.describe,
        "gemma4": bpe.describe,
        "bert": wordpiece.describe,
        "t5": spm.describe_unigram,
    }
)
"""Kinds of vocabulary by the name that files have for them."""
ENDS = ("eos_token_id", "eot_token_id", "eom_token_id")
"""Tokens that end a generation: a text, a turn, a message."""
MAX_TEMPLATES = 64


def files_of(metadata: Metadata) -> Files:
    """``tokenizer.json``, its configuration and the chat templates; nothing where the file has no vocabulary.

    Raises:
        CheckpointError: When a file is asked for: the vocabulary is damaged, or of a kind that is not known.
    """
    vocabulary = Vocabulary(metadata)
    entries: dict[str, Path | Callable[[], bytes]] = {}
    if vocabulary.model not in ("none", "no_vocab") or WHOLE in metadata:
        entries["tokenizer.json"] = partial(_tokenizer, vocabulary)
        entries["tokenizer_config.json"] = partial(_configuration, vocabulary)
        entries["generation_config.json"] = partial(_generation, vocabulary)
    for name, text in _templates(metadata).items():
        file = "chat_template.jinja" if name == "default" else f"additional_chat_templates/{name}.jinja"
        entries[file] = partial(str.encode, text, "utf-8")
    return Files(entries)


def _tokenizer(vocabulary: Vocabulary) -> bytes:
    whole = vocabulary.metadata.text(WHOLE)
    if whole is not None:
        return whole.encode("utf-8")
    describe = MODELS.get(vocabulary.model)
    if describe is None:
        raise CheckpointError(
            f"{vocabulary.metadata.where} has a vocabulary of the kind {vocabulary.model!r}, which is not known here",
            hint="give the original model's tokenizer with --tokenizer",
        )
    return json.dumps(describe(vocabulary), ensure_ascii=False).encode("utf-8")


def _configuration(vocabulary: Vocabulary) -> bytes:
    """Names of special tokens. What is put around a text, ``tokenizer.json`` says already."""
    return json.dumps(vocabulary.special_names(), ensure_ascii=False).encode("utf-8")


def _generation(vocabulary: Vocabulary) -> bytes:
    found = [token for key in ENDS if (token := vocabulary.named(key)) is not None]
    content: dict[str, Any] = {"eos_token_id": list(dict.fromkeys(found))}
    begins = vocabulary.named("bos_token_id")
    return json.dumps(content if begins is None else {"bos_token_id": begins, **content}).encode("ascii")


def _templates(metadata: Metadata) -> dict[str, str]:
    """Chat templates by name."""
    found = {}
    usual = metadata.text(TEMPLATE)
    if usual is not None:
        found["default"] = usual
    names = metadata.strings(TEMPLATES) or ()
    if len(names) > MAX_TEMPLATES:
        raise CheckpointError(f"{metadata.where} names {len(names)} chat templates; {MAX_TEMPLATES} are the limit")
    for name in names:
        text = metadata.text(f"{TEMPLATE}.{name}")
        if text is not None and name.replace("_", "").replace("-", "").isalnum():
            found[name] = text
    return found
