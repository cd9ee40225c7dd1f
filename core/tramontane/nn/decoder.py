# SPDX-License-Identifier: Apache-2.0
"""The frame that decoder-only language models share: embedding, blocks, final norm, head.

Legend: T tokens, L logit rows, D hidden size, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from torch import Tensor

from tramontane.batch import Ctx
from tramontane.nn.embedding import Embedding, Head
from tramontane.nn.module import Module
from tramontane.nn.norm import ResidualNorm

Block = Callable[[Tensor, Tensor | None, Ctx], tuple[Tensor, Tensor]]
"""(x [T, D], residual [T, D] or None, ctx) -> (x, residual); the sum of the two is the residual stream."""


class Decoder(Module):
    """Token ids to logits in the three pieces that the runner calls."""

    def __init__(self, embedding: Embedding, layers: Sequence[Block], norm: ResidualNorm, head: Head) -> None:
        self.embedding = embedding
        self.layers = layers
        self.norm = norm
        self.lm_head = head

    def embed(self, ctx: Ctx) -> Tensor:
        """Input embeddings: [T, D]."""
        return self.embedding(ctx)

    def forward(self, x_TD: Tensor, ctx: Ctx) -> Tensor:
        """Hidden states after the final norm: [T, D]."""
        residual_TD = None
        for layer in self.layers:
            x_TD, residual_TD = layer(x_TD, residual_TD, ctx)
        return self.norm(x_TD, residual_TD)[0]

    def head(self, h_LD: Tensor) -> Tensor:
        """Logits, float32: [L, V]."""
        return self.lm_head(h_LD)
