# SPDX-License-Identifier: Apache-2.0
"""A model that says what its weights spell out.

A prompt holds *cues* (the token that opens an assistant's turn, say) and may hold *topics*. After the n-th cue the
model says the n-th reply of the last topic before it, token by token, then the end token for ever. All that it knows of
the past comes through attention over the cache, so a wrong block, a lost prefix or a mixed-up batch changes the answer:

* head 0 looks at the last cue: where did this turn begin?
* head 1 looks at the last topic: which script?
* head 2 looks at everything alike: how many cues were there?

Positions and counts must be exact, so the model runs in float32 and is nothing for low-precision caches.
Legend: T tokens, L logit rows, D width of a code, V vocabulary, S scripts, N replies of a script, M marks.
"""

from __future__ import annotations

import torch
from attrs import frozen
from torch import Tensor

from tramontane import nn, ops
from tramontane.batch import Ctx
from tramontane.build import Builder

#: Columns of a token's marks, and of the values that attention brings back.
IS_CUE, IS_TOPIC, TOPIC, ONE = range(4)
WIDTH = 16
"""Width of marks and heads; more than the four columns, as kernels like round numbers."""
LATER = 32.0
"""By how much a mark's score beats the mark one position earlier: exp(-32) of a position is nothing in float32."""


@frozen(kw_only=True)
class ScriptedConfig:
    """What ``config.json`` says."""

    vocab_size: int
    hidden_size: int
    scripts: int
    replies: int
    script_rows: int
    max_position_embeddings: int


class Model(nn.Module):
    """Token ids to logits in the three pieces that the runner calls."""

    def __init__(self, c: ScriptedConfig, b: Builder) -> None:
        self.replies = c.replies
        self.marks = b.embedding("marks", c.vocab_size, WIDTH)
        self.attend = b.at("memory").cached_attention(nn.Heads(3, 3, WIDTH), scale=1.0)
        # Row ids are floats, exact up to 2**24: first and last row of each reply.
        bounds = b.matrix("bounds", 2, {"bounds": c.scripts * c.replies}, uses="rows")
        self.bounds = b.op(ops.Embed(2, torch.float32), bounds, name="bounds")
        codes = b.matrix("script", c.hidden_size, {"script": c.script_rows}, uses="rows")
        self.script = b.op(ops.Embed(c.hidden_size, b.dtype), codes, name="script")
        self.lm_head = b.head("lm_head", c.hidden_size, c.vocab_size)

    def embed(self, ctx: Ctx) -> Tensor:
        """The marks of the step's tokens: [T, M]."""
        return self.marks(ctx)

    def forward(self, x_TM: Tensor, ctx: Ctx) -> Tensor:
        """The code of the token to say after each token: [T, D]."""
        place_T = ctx.positions_KT[0].to(x_TM.dtype)
        cue_T, topic_T = x_TM[:, IS_CUE], x_TM[:, IS_TOPIC]
        later_T = (place_T + 1) * LATER
        keys_T3 = torch.stack((cue_T * later_T, topic_T * later_T, torch.zeros_like(later_T)), dim=-1)
        values_T3 = torch.stack((cue_T * place_T, x_TM[:, TOPIC], cue_T), dim=-1)
        ones_T3 = x_TM[:, ONE : ONE + 1].expand(-1, 3)
        seen_TE = self.attend(first_feature(ones_T3), first_feature(keys_T3), for_each_head(values_T3), ctx)
        seen_T3M = seen_TE.view(-1, 3, WIDTH)

        begin_T, topic_T, share_T = seen_T3M[:, 0, 0], seen_T3M[:, 1, 1], seen_T3M[:, 2, 2]
        cues_T = (share_T * (place_T + 1)).round().long()
        reply_T = topic_T.round().long() * self.replies + (cues_T - 1).clamp(0, self.replies - 1)
        bounds_T2 = self.bounds(reply_T, ctx=ctx).round().long()
        row_T = torch.minimum(bounds_T2[:, 0] + (place_T - begin_T).round().long(), bounds_T2[:, 1])
        return self.script(row_T * cues_T.clamp(0, 1), ctx=ctx)

    def head(self, h_LD: Tensor) -> Tensor:
        """Logits, float32: [L, V]."""
        return self.lm_head(h_LD)


def first_feature(numbers_T3: Tensor) -> Tensor:
    """Queries or keys with one number in the first feature: [T, 3] -> [T, 3, M]."""
    return torch.nn.functional.pad(numbers_T3.unsqueeze(-1), (0, WIDTH - 1))


def for_each_head(values_T3: Tensor) -> Tensor:
    """The same values for each head: [T, 3] -> [T, 3, M]."""
    wide_TM = torch.nn.functional.pad(values_T3, (0, WIDTH - values_T3.shape[-1]))
    return wide_TM.unsqueeze(1).repeat(1, 3, 1)
