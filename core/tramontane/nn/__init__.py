# SPDX-License-Identifier: Apache-2.0
"""The vocabulary of model files. Modules are made by the :class:`~tramontane.build.Builder`."""

from tramontane.nn.attention import Attention, CachedAttention, Heads, LatentAttention
from tramontane.nn.decoder import Decoder
from tramontane.nn.embedding import Embedding, Head
from tramontane.nn.linear import Linear, Merged
from tramontane.nn.mlp import GatedMlp, Mlp
from tramontane.nn.module import Module
from tramontane.nn.moe import Experts, Moe, SharedMoe
from tramontane.nn.norm import AddedNorm, Norm, ResidualNorm
from tramontane.nn.rope import Rope

__all__ = [
    "AddedNorm",
    "Attention",
    "CachedAttention",
    "Decoder",
    "Embedding",
    "Experts",
    "GatedMlp",
    "Head",
    "Heads",
    "LatentAttention",
    "Linear",
    "Merged",
    "Mlp",
    "Module",
    "Moe",
    "Norm",
    "ResidualNorm",
    "Rope",
    "SharedMoe",
]
