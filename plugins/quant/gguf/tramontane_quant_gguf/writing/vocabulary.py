# SPDX-License-Identifier: Apache-2.0
"""A ``tokenizer.json`` as GGUF's metadata: the inverse of :mod:`tramontane_quant_gguf.vocabulary`.

Byte-level BPE and BPE with marked spaces can be written. A vocabulary of another kind is left out with a warning; the
model then runs on token ids.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from typing import Any

import numpy as np

from tramontane.chat import find_template
from tramontane.checkpoint import Files
from tramontane.tokenizer import Tokenizer
from tramontane_quant_gguf.reading import Metadata
from tramontane_quant_gguf.vocabulary import spm
from tramontane_quant_gguf.vocabulary.files import TEMPLATE, TEMPLATES, WHOLE
from tramontane_quant_gguf.vocabulary.pre import GPT2, PRE
from tramontane_quant_gguf.vocabulary.tokens import NAMED, PREFIX, Kind, Vocabulary

_log = logging.getLogger(__name__)
NOTHING = {f"{PREFIX}.model": "none"}


def write_vocabulary(files: Files, size: int) -> dict[str, Any]:
    """Metadata of a checkpoint's tokenizer and chat templates.

    Args:
        files: The checkpoint's.
        size: Rows of the embedding; tokens are added up to it.
    """
    content = files.json("tokenizer.json")
    templates = _templates(files)
    if content is None:
        return {**NOTHING, **templates}
    found = _tokens(content, size)
    if found is None:
        return {**NOTHING, **templates}
    return {**found, **_special(Tokenizer.from_files(files)), **templates}


def _templates(files: Files) -> dict[str, Any]:
    source = find_template(files)
    templates = {} if source is None else dict(source.templates)
    found: dict[str, Any] = {TEMPLATE: templates.pop("default")} if "default" in templates else {}
    if templates:
        found[TEMPLATES] = list(templates)
        found |= {f"{TEMPLATE}.{name}": text for name, text in templates.items()}
    return found


def _special(tokenizer: Tokenizer) -> dict[str, Any]:
    """Ids of special tokens, and what is put around a text."""
    ids = {key: tokenizer.token_id(tokenizer.names[name]) for name, key in NAMED.items() if name in tokenizer.names}
    if tokenizer.bos_id is not None:
        ids["bos_token_id"] = tokenizer.bos_id
    if tokenizer.eos_ids:
        ids["eos_token_id"] = tokenizer.eos_ids[0]
        ids |= dict(zip(("eot_token_id", "eom_token_id"), tokenizer.eos_ids[1:3], strict=False))
    found = {f"{PREFIX}.{key}": token for key, token in ids.items() if token is not None}
    whole, body = tokenizer.encode("a"), tokenizer.encode("a", add_special=False)
    begins = len(whole) > len(body) and whole[0] == tokenizer.bos_id
    ends = len(whole) > len(body) and whole[-1] in tokenizer.eos_ids
    return {**found, f"{PREFIX}.add_bos_token": begins, f"{PREFIX}.add_eos_token": ends}


def _tokens(content: Mapping[str, Any], size: int) -> dict[str, Any] | None:
    model = content.get("model") or {}
    if model.get("type") != "BPE":
        _log.warning("a vocabulary of the kind %r cannot be written; the file has none", model.get("type"))
        return None
    tokens, kinds = _listed(content, size)
    pairs = [tuple(pair) if isinstance(pair, list) else tuple(pair.split(" ", 1)) for pair in model["merges"]]
    common = {f"{PREFIX}.tokens": tokens, f"{PREFIX}.token_type": np.array(kinds, np.int32)}
    if model.get("byte_fallback"):
        return _marked(content, tokens, pairs, common)
    name = _pre_name(content.get("pre_tokenizer"), bool(model.get("ignore_merges")))
    if name is None:
        _log.warning("GGUF has no name for how this tokenizer cuts words; the file has no vocabulary")
        return None
    merges = [" ".join(pair) for pair in pairs]
    return {f"{PREFIX}.model": "gpt2", f"{PREFIX}.pre": name, f"{PREFIX}.merges": merges, **common}


def _listed(content: Mapping[str, Any], size: int) -> tuple[list[str], list[int]]:
    """All tokens by id and what they are; ids without a token are filled."""
    ids: dict[str, int] = dict(content["model"]["vocab"])
    added = {entry["content"]: entry for entry in content.get("added_tokens") or ()}
    ids |= {text: entry["id"] for text, entry in added.items()}
    count = max(size, 1 + max(ids.values(), default=-1))
    tokens, kinds = [f"[PAD{token}]" for token in range(count)], [int(Kind.UNUSED)] * count
    unknown = content["model"].get("unk_token")
    for text, token in ids.items():
        tokens[token], kinds[token] = text, Kind.NORMAL
        if text == unknown:
            kinds[token] = Kind.UNKNOWN
        elif text in added:
            kinds[token] = Kind.CONTROL if added[text]["special"] else Kind.USER_DEFINED
        elif len(text) == 6 and text.startswith("<0x") and text.endswith(">"):
            kinds[token] = Kind.BYTE
    return tokens, [int(kind) for kind in kinds]


def _marked(
    content: Mapping[str, Any], tokens: list[str], pairs: list[tuple[str, ...]], common: dict[str, Any]
) -> dict[str, Any]:
    """BPE with marked spaces: a token's score is the rank of the first merge that makes it."""
    ranks: dict[str, int] = {}
    for rank, pair in enumerate(pairs):
        ranks.setdefault("".join(pair), rank)
    scores = np.array([-float(ranks.get(text, 0)) for text in tokens], np.float32)
    prefixed = '"Prepend"' in json.dumps(content.get("normalizer")) or _metaspace_prepends(content)
    found = {
        f"{PREFIX}.model": "llama",
        f"{PREFIX}.pre": "default",
        f"{PREFIX}.scores": scores,
        f"{PREFIX}.add_space_prefix": prefixed,
        **common,
    }
    rebuilt = spm.merges_of(Vocabulary(Metadata({**found, f"{PREFIX}.tokens": tuple(tokens)}, "the vocabulary")))
    if set(rebuilt) != set(pairs):
        # Scores cannot say which of two ways to make a token is no merge; the whole description goes beside them.
        found[WHOLE] = json.dumps(content, ensure_ascii=False)
    return found


def _metaspace_prepends(content: Mapping[str, Any]) -> bool:
    step = content.get("pre_tokenizer") or {}
    return step.get("type") == "Metaspace" and step.get("prepend_scheme") != "never"


def _pre_name(step: Mapping[str, Any] | None, whole_words: bool) -> str | None:
    """The name of a pre-tokenizer in GGUF; ``None`` if it has none."""
    patterns = _patterns(step)
    if patterns is None:
        return None
    named = [name for name, pre in PRE.items() if pre.byte_level and pre.patterns == patterns]
    exact = [name for name in named if PRE[name].whole_words == whole_words]
    return next(iter(exact), None)


def _patterns(step: Mapping[str, Any] | None) -> tuple[str, ...] | None:
    """The patterns that a pre-tokenizer cuts by, in order; ``None`` if it does something else."""
    if step is None:
        return None
    found: list[str] = []
    for one in step["pretokenizers"] if step["type"] == "Sequence" else [step]:
        match one:
            case {"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated" | "Removed", "invert": invert}:
                if (one["behavior"] == "Removed") != invert:
                    return None
                found.append(pattern)
            case {"type": "Digits", "individual_digits": single}:
                found.append(r"\p{N}" if single else r"\p{N}+")
            case {"type": "ByteLevel", "add_prefix_space": False}:
                found += [GPT2] if one.get("use_regex", True) else []
            case _:
                return None
    return tuple(found)
