# SPDX-License-Identifier: Apache-2.0
"""Special tokens: which a checkpoint's files name, which end a generation, and which a text must not be able to spell.

Reads ``tokenizer_config.json``, ``special_tokens_map.json``, ``generation_config.json`` and ``config.json``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import tokenizers

from tramontane.checkpoint import Files

NAMES = ("bos_token", "eos_token", "unk_token", "pad_token", "sep_token", "cls_token", "mask_token")

#: Tokens that end a turn where a chat template writes them, whatever the configuration says.
_TURN_ENDERS = (
    "<|im_end|>",
    "<|eot_id|>",
    "<|eot|>",
    "<|end_of_text|>",
    "<|end_of_turn|>",
    "<|END_OF_TURN_TOKEN|>",
    "<end_of_turn>",
    "<turn|>",
    "<|end|>",
)

#: In the Harmony format ``<|end|>`` ends a message inside a turn; this token tells that format.
_HARMONY = "<|return|>"

#: Control tokens that some vocabularies do not flag as special.
_ALWAYS_CONTROL = frozenset({"<s>", "</s>", "<unk>", "<pad>", "<bos>", "<eos>"})

IdOf = Callable[[str], int | None]


def special_names(files: Files) -> dict[str, str]:
    """``{"bos_token": "<s>", ...}`` as the checkpoint names them."""
    found: dict[str, str] = {}
    for file in ("special_tokens_map.json", "tokenizer_config.json"):
        stored = files.json(file) or {}
        for name in NAMES:
            value = stored.get(name)
            if isinstance(value, dict):
                value = value.get("content")
            if isinstance(value, str):
                found[name] = value
    return found


def bos_id(files: Files, names: Mapping[str, str], id_of: IdOf) -> int | None:
    """The id that begins a text, if the checkpoint has one."""
    named = id_of(names["bos_token"]) if "bos_token" in names else None
    candidates = [named, *(ids[0] for file in _CONFIGS if (ids := _ids((files.json(file) or {}).get("bos_token_id"))))]
    return next((token for token in candidates if token is not None), None)


def eos_ids(files: Files, names: Mapping[str, str], id_of: IdOf, template: str | None) -> tuple[int, ...]:
    """The ids that end a generation, each once: those of the generation configuration (of ``config.json`` where there
    is none), the tokenizer's EOS, and what the chat template ends turns with."""
    found: list[int] = []
    for file in _CONFIGS:
        found = _ids((files.json(file) or {}).get("eos_token_id"))
        if found:
            break
    spelled = [names["eos_token"]] if "eos_token" in names else []
    if template is not None:
        spelled += [
            ender for ender in _TURN_ENDERS if ender in template and not (ender == "<|end|>" and id_of(_HARMONY))
        ]
    found += [token for token in map(id_of, spelled) if token is not None]
    return tuple(dict.fromkeys(found))


def control_tokens(backend: tokenizers.Tokenizer, names: Mapping[str, str], template: str | None) -> frozenset[str]:
    """Added tokens that only templates and parsers may produce, never a user's text.

    These are all tokens flagged as special, those the configuration names, and those the chat template writes (such as
    ``<tool_call>``). Other added tokens are plain vocabulary (runs of spaces, markup the model was trained on).
    """
    named = frozenset(names.values()) | _ALWAYS_CONTROL
    found = set()
    for token in backend.get_added_tokens_decoder().values():
        content = token.content
        written = template is not None and len(content) > 1 and not content.isspace() and content in template
        if content and (token.special or content in named or written):
            found.add(content)
    return frozenset(found)


def explicit_ends(files: Files) -> tuple[bool, bool] | None:
    """(add BOS, add EOS) if ``tokenizer_config.json`` says so; it then overrides ``tokenizer.json``, as in
    transformers."""
    stored = files.json("tokenizer_config.json") or {}
    flags = [stored.get("add_bos_token"), stored.get("add_eos_token")]
    if not any(isinstance(flag, bool) for flag in flags):
        return None
    return flags[0] is True, flags[1] is True


_CONFIGS = ("generation_config.json", "config.json")


def _ids(value: Any) -> list[int]:
    """Ids from an int, a list of ints, or nothing."""
    items: Iterable[Any] = value if isinstance(value, list) else (value,)
    return [item for item in items if isinstance(item, int) and not isinstance(item, bool) and item >= 0]
