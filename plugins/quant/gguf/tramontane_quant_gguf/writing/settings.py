# SPDX-License-Identifier: Apache-2.0
"""The configuration as GGUF's settings: the inverse of reading them, and the tensors that stretch positions."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping
from typing import Any

import torch
from attrs import evolve
from torch import Tensor

from tramontane.config import RopeConfig, text_config
from tramontane.nn.rope import frequencies, rotary_dim
from tramontane_quant_gguf.settings import COUNTS, FACTORS, LONG, REALS, SHORT, WINDOW

_log = logging.getLogger(__name__)


def write_settings(config: Mapping[str, Any], name: str) -> dict[str, Any]:
    """Settings under the prefix ``name``, as far as GGUF has common words for them."""
    text = text_config(config)
    found: dict[str, Any] = {}
    for key, ours in {**COUNTS, WINDOW: "sliding_window"}.items():
        if isinstance(text.get(ours), int) and text[ours]:
            found[f"{name}.{key}"] = text[ours]
    for key, ours in REALS.items():
        if isinstance(text.get(ours), int | float):
            found[f"{name}.{key}"] = float(text[ours])
    heads = text["num_attention_heads"]
    found.setdefault(f"{name}.attention.head_count_kv", heads)
    width = text.get("head_dim") or text["hidden_size"] // heads
    found[f"{name}.attention.key_length"] = found[f"{name}.attention.value_length"] = width
    if isinstance(text.get("vocab_size"), int):
        found[f"{name}.vocab_size"] = text["vocab_size"]
    return found


def write_rope(rope: RopeConfig, name: str, head_dim: int) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Settings of the rotary embedding, and stored factors by tensor name."""
    dim = rotary_dim(rope, head_dim)
    found: dict[str, Any] = {f"{name}.rope.freq_base": rope.theta, f"{name}.rope.dimension_count": dim}
    at, trained = f"{name}.rope.scaling", rope.original_max_position_embeddings
    if rope.kind == "default":
        return found, {}
    if rope.kind == "linear":
        return found | {f"{at}.type": "linear", f"{at}.factor": rope.factor}, {}
    if rope.kind == "yarn":
        found |= {f"{at}.type": "yarn", f"{at}.factor": rope.factor, f"{at}.original_context_length": trained}
        return found | _yarn(rope, at), {}
    if rope.kind == "llama3" or (rope.kind == "longrope" and rope.short_factor == rope.long_factor):
        return found, {FACTORS: _stretch(rope, dim, trained)}
    if rope.kind == "longrope":
        _, attention = frequencies(rope, dim, trained + 1)
        found |= {f"{at}.attn_factor": attention, f"{at}.original_context_length": trained}
        return found, {SHORT: _stretch(rope, dim, trained), LONG: _stretch(rope, dim, trained + 1)}
    _log.warning("GGUF has no words for positions stretched by %r; they are written as they were trained", rope.kind)
    return found, {}


def _yarn(rope: RopeConfig, at: str) -> dict[str, float]:
    found = {}
    for key, value, usual in (("beta_fast", rope.beta_fast, 32.0), ("beta_slow", rope.beta_slow, 1.0)):
        if value != usual:
            found[f"{at}.yarn_{key}"] = value
    if rope.attention_factor is not None and rope.factor > 1:
        found[f"{at}.attn_factor"] = rope.attention_factor / (1 + 0.1 * math.log(rope.factor))
    return found


def _stretch(rope: RopeConfig, dim: int, positions: int) -> Tensor:
    """By how much each frequency is divided for sequences of this length."""
    plain, _ = frequencies(evolve(rope, kind="default"), dim, positions)
    stretched, _ = frequencies(rope, dim, positions)
    return (plain / stretched).to(torch.float32)
