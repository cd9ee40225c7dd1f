# SPDX-License-Identifier: Apache-2.0
"""How one head's key or value of one token is coded in the cache: an *entry*.

Floating-point types hold the numbers themselves. ``float8_e4m3fn`` rounds to 448 at most: relative error up to 1/16.
``int8`` entries are codes, followed by the float32 scale that they share: a token's head by itself, so that the error
is at most 1/254 of its own largest feature and nothing has to be calibrated.
"""

from __future__ import annotations

from contextlib import suppress

import torch
from torch import Tensor

from tramontane.config.checkpoints import parse_dtype
from tramontane.errors import ConfigError

NAMES = {"fp8": torch.float8_e4m3fn, "float8_e4m3fn": torch.float8_e4m3fn, "int8": torch.int8}
"""What a cache may be made of beside the floating-point types that weights have."""
SCALE_BYTES = 4
LEVELS = 127


def parse_cache_dtype(name: str) -> torch.dtype:
    """An entry's type by name: ``bf16``, ``float32``, ``fp8``, ``int8`` ...

    Raises:
        ConfigError: There is no such type, or entries cannot be made of it.
    """
    found = NAMES.get(name.lower())
    if found is not None:
        return found
    with suppress(ConfigError):
        found = parse_dtype(name)
    if found not in (torch.float32, torch.bfloat16, torch.float16):
        known = ", ".join(("float32", "bfloat16", "float16", *NAMES))
        raise ConfigError(f"a key-value cache cannot be made of {name!r}", hint=f"--kv-dtype takes {known}")
    return found


def entry_elements(features: int, dtype: torch.dtype) -> int:
    """Elements of ``dtype`` that an entry of so many features takes in a plane."""
    return features + SCALE_BYTES if dtype is torch.int8 and features else features


def entry_features(elements: int, dtype: torch.dtype) -> int:
    """The features of an entry of so many elements."""
    return elements - SCALE_BYTES if dtype is torch.int8 and elements else elements


def encode(values: Tensor, dtype: torch.dtype) -> Tensor:
    """Entries [..., elements] of numbers [..., features]."""
    if dtype is torch.int8:
        wide = values.float()
        scale = wide.abs().amax(-1, keepdim=True) / LEVELS
        codes = (wide / torch.where(scale == 0, torch.ones_like(scale), scale)).round().to(torch.int8)
        return torch.cat((codes, scale.contiguous().view(torch.int8)), dim=-1)
    if dtype is torch.float8_e4m3fn:
        most = torch.finfo(dtype).max
        return values.float().clamp(-most, most).to(dtype)
    return values.to(dtype)


def decode(entries: Tensor, dtype: torch.dtype) -> Tensor:
    """The numbers [..., features] of entries, in ``dtype``."""
    if entries.dtype is torch.int8:
        features = entries.shape[-1] - SCALE_BYTES
        scale = entries[..., features:].clone(memory_format=torch.contiguous_format).view(torch.float32)
        return (entries[..., :features].float() * scale).to(dtype)
    return entries.to(dtype)
