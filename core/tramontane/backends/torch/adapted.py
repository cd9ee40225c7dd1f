# SPDX-License-Identifier: Apache-2.0
"""What adapters add, with stock torch.

Where the host knows which tokens use which adapter, each adapter costs its own tokens two thin products and nothing
else. Otherwise all adapters of a stack are one product, weighted between the two.

Legend: T tokens, N tokens of one adapter, I inputs, O outputs of a part, A columns of the mix, S places of a stack,
P parts, R rank of a stack.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from tramontane.batch import Ctx
from tramontane.ops import AddAdapted, Kernel, Op


def add_adapted(op: Op, weights: Sequence[Any]) -> Kernel | str:
    """Thin products over the tokens that each adapter has."""
    if not isinstance(op, AddAdapted):
        return f"made for add_adapted, not {op.name}"
    (bank,) = weights

    def run(ctx: Ctx | None, inputs: Sequence[Tensor], outputs: Sequence[Tensor]) -> None:
        (y_TO, x_TI, mix_TA), (out_TO,) = inputs, outputs
        out_TO.copy_(y_TO)
        if ctx is None or ctx.host is None or ctx.host.adapted is None:
            for stack in bank.stacks.values():
                _weighted(bank.spans, stack, x_TI, mix_TA, out_TO)
            return
        for one in ctx.host.adapted:
            found = bank.places.get(one.column)
            if found is not None:
                stack, place = found
                _own(bank.spans, stack, place, x_TI, one.tokens, out_TO)

    return run


def _own(spans: Sequence[slice], stack: Any, place: int, x_TI: Tensor, tokens: slice | Tensor, out_TO: Tensor) -> None:
    """One adapter, its tokens only."""
    down_PRI = stack.down_SPRI[place]
    h_NX = torch.mm(x_TI[tokens], down_PRI.flatten(0, 1).t())
    for part, up_SRO in enumerate(stack.ups):
        if up_SRO is None:
            continue
        h_NR, out_NO = h_NX[:, part * stack.rank : (part + 1) * stack.rank], out_TO[:, spans[part]]
        if isinstance(tokens, slice):
            out_NO[tokens].addmm_(h_NR, up_SRO[place])
        else:
            out_NO.index_add_(0, tokens, torch.mm(h_NR, up_SRO[place]))


def _weighted(spans: Sequence[slice], stack: Any, x_TI: Tensor, mix_TA: Tensor, out_TO: Tensor) -> None:
    """All adapters of a stack, weighted by the mix. Free places are zero, whatever weight they are given."""
    column_S = torch.tensor([max(column, 0) for column in stack.columns], device=mix_TA.device)
    mix_TS11 = mix_TA[:, column_S].to(x_TI.dtype)[:, :, None, None]
    down_SPRI = stack.down_SPRI
    h_TSPR = torch.mm(x_TI, down_SPRI.flatten(0, 2).t()).view(-1, *down_SPRI.shape[:3]) * mix_TS11
    for part, up_SRO in enumerate(stack.ups):
        if up_SRO is not None:
            out_TO[:, spans[part]].addmm_(h_TSPR[:, :, part].flatten(1), up_SRO.flatten(0, 1))
