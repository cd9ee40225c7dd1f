# SPDX-License-Identifier: Apache-2.0
"""The GGML types that the format has numbers for: those that core unpacks, and the two that hold activations."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

import torch
from torch import Tensor

from tramontane.schemes import BlockCodec
from tramontane.schemes.ggml import CODECS as CORE


def _q8_1(blocks: Tensor) -> Tensor:
    """float16 d, float16 d * sum, 32 int8: ``w = q * d``."""
    scale = blocks[:, :2].contiguous().view(torch.float16).float()
    return blocks[:, 4:].contiguous().view(torch.int8).float() * scale


def _q8_k(blocks: Tensor) -> Tensor:
    """float32 d, 256 int8, 16 sums: ``w = q * d``."""
    scale = blocks[:, :4].contiguous().view(torch.float32)
    return blocks[:, 4:260].contiguous().view(torch.int8).float() * scale


Q8_1 = BlockCodec("q8_1", 9, 32, 36, _q8_1)
Q8_K = BlockCodec("q8_k", 15, 256, 292, _q8_k)
CODECS: Mapping[int, BlockCodec] = MappingProxyType({codec.id: codec for codec in (*CORE.values(), Q8_1, Q8_K)})
"""By number."""
