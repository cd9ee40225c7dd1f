# SPDX-License-Identifier: Apache-2.0
"""Settings that GGUF calls the same for every architecture, in Hugging Face's spelling, and back.

What an architecture calls by names of its own is its dialect's business.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from tramontane.checkpoint import TensorRef
from tramontane.errors import CheckpointError
from tramontane_quant_gguf.reading import Metadata

COUNTS: Mapping[str, str] = MappingProxyType(
    {
        "block_count": "num_hidden_layers",
        "embedding_length": "hidden_size",
        "context_length": "max_position_embeddings",
        "feed_forward_length": "intermediate_size",
        "attention.head_count": "num_attention_heads",
        "attention.head_count_kv": "num_key_value_heads",
        "attention.key_length": "head_dim",
    }
)
"""Whole numbers above zero. Some architectures state one per layer; those are for their dialects."""
WINDOW = "attention.sliding_window"
"""0 means that there is none."""
REALS: Mapping[str, str] = MappingProxyType(
    {
        "attention.layer_norm_rms_epsilon": "rms_norm_eps",
        "rope.freq_base": "rope_theta",
    }
)
TOKENS: Mapping[str, str] = MappingProxyType(
    {
        "tokenizer.ggml.bos_token_id": "bos_token_id",
        "tokenizer.ggml.eos_token_id": "eos_token_id",
        "tokenizer.ggml.padding_token_id": "pad_token_id",
    }
)
EMBEDDING, OUTPUT = "token_embd.weight", "output.weight"
FACTORS, LONG, SHORT = "rope_freqs.weight", "rope_factors_long.weight", "rope_factors_short.weight"
NEEDED = ("block_count", "embedding_length", "attention.head_count")
MAX_FACTORS = 4096


def read_settings(metadata: Metadata, name: str, tensors: Mapping[str, TensorRef]) -> dict[str, Any]:
    """The configuration as far as GGUF has common words for it.

    Args:
        metadata: Of the first file.
        name: What the file calls the architecture; the prefix of its settings.
        tensors: All tensors; some say what metadata does not.

    Raises:
        CheckpointError: A setting is missing or of the wrong kind, or cannot belong to these tensors.
    """
    found: dict[str, Any] = {}
    for key, ours in COUNTS.items():
        if not metadata.is_array(f"{name}.{key}"):
            found[ours] = metadata.whole(f"{name}.{key}", least=1)
    if not metadata.is_array(f"{name}.{WINDOW}"):
        found["sliding_window"] = metadata.whole(f"{name}.{WINDOW}") or None
    for key, ours in REALS.items():
        found[ours] = metadata.real(f"{name}.{key}")
    for key, ours in TOKENS.items():
        found[ours] = metadata.whole(key)
    found = {ours: value for ours, value in found.items() if value is not None}
    if tensors:
        _check_needed(metadata, name, tensors)
        found["tie_word_embeddings"] = OUTPUT not in tensors
    vocabulary = _vocabulary(metadata, name, tensors)
    if vocabulary is not None:
        found["vocab_size"] = vocabulary
    return {**found, **_rope(metadata, name, found, tensors)}


def _check_needed(metadata: Metadata, name: str, tensors: Mapping[str, TensorRef]) -> None:
    """Every model has these, and no more layers than tensors."""
    missing = [f"{name}.{key}" for key in NEEDED if f"{name}.{key}" not in metadata]
    if missing:
        raise CheckpointError(f"{metadata.where} lacks the settings {', '.join(missing)}")
    layers = metadata.whole(f"{name}.block_count", least=1) or 0
    if layers > len(tensors):
        raise CheckpointError(f"{metadata.where} states {layers} layers, but holds {len(tensors)} tensors")


def _vocabulary(metadata: Metadata, name: str, tensors: Mapping[str, TensorRef]) -> int | None:
    """Words of the embedding; of the vocabulary where there is none."""
    embedding = tensors.get(EMBEDDING)
    if embedding is not None:
        return embedding.shape[0]
    stated = metadata.whole(f"{name}.vocab_size", least=1)
    tokens = metadata.strings("tokenizer.ggml.tokens")
    return stated if tokens is None else len(tokens)


# --- rotary embedding -------------------------------------------------------------------------------------------------


def _rope(metadata: Metadata, name: str, config: Mapping[str, Any], tensors: Mapping[str, TensorRef]) -> dict[str, Any]:
    """Which features are turned, and how positions are stretched."""
    found: dict[str, Any] = {}
    heads, width = config.get("num_attention_heads"), config.get("hidden_size")
    head_dim = config.get("head_dim") or (width // heads if heads and width else None)
    turned = metadata.whole(f"{name}.rope.dimension_count", least=1)
    if turned is not None and head_dim is not None and turned < head_dim:
        found["partial_rotary_factor"] = turned / head_dim
    scaling = _stored_factors(metadata, name, config, tensors) or _scaling(metadata, name, config)
    if scaling is not None:
        found["rope_scaling"] = scaling
    return found


def _stored_factors(
    metadata: Metadata, name: str, config: Mapping[str, Any], tensors: Mapping[str, TensorRef]
) -> dict[str, Any] | None:
    """Stretches stored as tensors, one number a pair of features: for all positions, or for long and short texts."""
    trained = metadata.whole(f"{name}.rope.scaling.original_context_length", least=1)
    length = config.get("max_position_embeddings")
    if FACTORS in tensors:
        factors = _numbers(tensors[FACTORS], metadata.where)
        short, long, attention = factors, factors, 1.0
    elif LONG in tensors and SHORT in tensors:
        short, long = (_numbers(tensors[key], metadata.where) for key in (SHORT, LONG))
        stated = metadata.real(f"{name}.rope.scaling.attn_factor")
        attention = 1.0 if stated is None else stated
    else:
        return None
    return {
        "rope_type": "longrope",
        "short_factor": short,
        "long_factor": long,
        "attention_factor": attention,
        "original_max_position_embeddings": trained or length,
    }


def _scaling(metadata: Metadata, name: str, config: Mapping[str, Any]) -> dict[str, Any] | None:
    """Stretches by one factor."""
    at = f"{name}.rope.scaling"
    kind = metadata.text(f"{at}.type") or ("linear" if f"{name}.rope.scale_linear" in metadata else "none")
    factor = metadata.real(f"{at}.factor") or metadata.real(f"{name}.rope.scale_linear")
    if kind == "none" or (kind == "linear" and factor in (None, 0.0, 1.0)):
        return None
    if kind == "linear":
        return {"rope_type": "linear", "factor": factor}
    if kind != "yarn":
        raise CheckpointError(f"{metadata.where} stretches positions by {kind!r}, but lacks the tensors for that")
    found = {
        "rope_type": "yarn",
        "factor": factor,
        "original_max_position_embeddings": metadata.whole(f"{at}.original_context_length", least=1)
        or config.get("max_position_embeddings"),
        "beta_fast": metadata.real(f"{at}.yarn_beta_fast"),
        "beta_slow": metadata.real(f"{at}.yarn_beta_slow"),
    }
    attention = metadata.real(f"{at}.attn_factor")
    if attention is not None and factor is not None and factor > 1:
        found["attention_factor"] = attention * (1 + 0.1 * math.log(factor))
    return {key: value for key, value in found.items() if value is not None}


def _numbers(ref: TensorRef, where: str) -> list[float]:
    """A short stored vector."""
    if len(ref.shape) != 1 or ref.shape[0] > MAX_FACTORS or ref.encoding or not ref.dtype.is_floating_point:
        raise CheckpointError(f"{where}: {ref.name!r} is no vector of up to {MAX_FACTORS} floating-point numbers")
    return [float(value) for value in ref.read().tolist()]
