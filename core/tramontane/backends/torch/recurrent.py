# SPDX-License-Identifier: Apache-2.0
"""Recurrent layers with stock torch.

Rows that add one token are advanced together; a longer row goes through the delta rule in chunks, whose steps are
matrix products (Yang et al., 2024, section 3.3).

Legend: T tokens, R rows of one token each, N tokens of one row, C tokens of a chunk, W width of the convolution, D
channels, H value heads, K key dimension, V value dimension.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, ClassVar

import torch
from attrs import define, field
from torch import Tensor
from torch.nn import functional as F

from tramontane.batch import Ctx
from tramontane.ops import ACTIVATIONS, CausalConv, GatedDelta, Kernel, Op
from tramontane.weights import CacheSlot

CHUNK = 64
"""Tokens of a chunk. Its triangular system costs the square of this, its other products are fewer the longer it is."""


def causal_conv(op: Op, weights: Sequence[Any]) -> Kernel | str:
    """A short convolution along each row."""
    if not isinstance(op, CausalConv):
        return f"made for causal_conv, not {op.name}"
    return _Conv(op, weights[0], weights[1].tensor.float())


def gated_delta(op: Op, weights: Sequence[Any]) -> Kernel | str:
    """Linear attention by the gated delta rule."""
    if not isinstance(op, GatedDelta):
        return f"made for gated_delta, not {op.name}"
    return _Delta(op, weights)


@define
class _Split:
    """The rows of a step: those of one token (at these places, with these slots), then the others."""

    places_R: Tensor
    slots_R: Tensor
    fresh_R: Tensor
    longer: list[tuple[slice, int]]
    end: int
    """Where the rows end and padding begins."""

    @classmethod
    def of(cls, ctx: Ctx | None, state: Tensor) -> _Split:
        """Sort the rows, and zero the states of longer ones that start."""
        if ctx is None or ctx.host is None or ctx.state_slot_R is None or ctx.state_fresh_R is None:
            raise TypeError("the torch backend's recurrent layers read the batch on the host")
        starts, count = ctx.host.q_start, len(ctx.host.kv_len)
        slots, fresh = ctx.state_slot_R[:count], ctx.state_fresh_R[:count]
        single = [row for row in range(count) if starts[row + 1] - starts[row] == 1]
        rows_R = torch.tensor(single, dtype=torch.int64, device=slots.device)
        places_R = torch.tensor([starts[row] for row in single], dtype=torch.int64, device=slots.device)
        longer = []
        for row, (slot, new) in enumerate(zip(slots.tolist(), fresh.tolist(), strict=True)):
            if starts[row + 1] - starts[row] > 1:
                longer.append((slice(starts[row], starts[row + 1]), slot))
                if new:
                    state[slot].zero_()
        return cls(places_R, slots[rows_R], fresh[rows_R], longer, starts[-1])

    def states(self, state: Tensor) -> Tensor:
        """Copies of the states of the rows of one token, zero where a row starts: [R, ...]."""
        found = state[self.slots_R]
        found[self.fresh_R] = 0
        return found


@define(eq=False)
class _Conv:
    """The kernel of one layer."""

    op: CausalConv
    slot: CacheSlot
    weight_DW: Tensor = field(repr=False)
    reads_host: ClassVar[bool] = True

    def __call__(self, ctx: Ctx | None, inputs: Sequence[Tensor], outputs: Sequence[Tensor]) -> None:
        (x_TD,), (out_TD,) = inputs, outputs
        (state,) = self.slot.states
        split, act, past = _Split.of(ctx, state), ACTIVATIONS[self.op.act], self.op.width - 1
        if len(split.places_R):
            inputs_RDW = torch.cat((split.states(state), x_TD[split.places_R].unsqueeze(-1).to(state.dtype)), dim=-1)
            state[split.slots_R] = inputs_RDW[..., 1:]
            out_TD[split.places_R] = act((inputs_RDW.float() * self.weight_DW).sum(-1)).to(out_TD.dtype)
        for tokens, slot in split.longer:
            inputs_DN = torch.cat((state[slot], x_TD[tokens].T.to(state.dtype)), dim=1)
            state[slot] = inputs_DN[:, -past:]
            made_DN = F.conv1d(inputs_DN.float(), self.weight_DW.unsqueeze(1), groups=len(self.weight_DW))
            out_TD[tokens] = act(made_DN).T.to(out_TD.dtype)
        out_TD[split.end :].zero_()


@define(eq=False)
class _Delta:
    """The kernel of one layer."""

    op: GatedDelta
    weights: Sequence[Any] = field(repr=False)
    reads_host: ClassVar[bool] = True

    def __call__(self, ctx: Ctx | None, inputs: Sequence[Tensor], outputs: Sequence[Tensor]) -> None:
        (state,) = self.weights[0].states
        split = _Split.of(ctx, state)
        prepared = self.op.prepared(self.weights, *inputs)
        out_THV = outputs[0].unflatten(-1, (self.op.value_heads, self.op.value_dim))
        if len(split.places_R):
            now_RHKV = split.states(state)
            out_THV[split.places_R] = _step(now_RHKV, *(one[split.places_R] for one in prepared)).to(out_THV.dtype)
            state[split.slots_R] = now_RHKV
        for tokens, slot in split.longer:
            made = [_chunk(state[slot], *parts) for parts in _chunks(*(one[tokens] for one in prepared))]
            out_THV[tokens] = torch.cat(made, dim=1).transpose(0, 1).to(out_THV.dtype)
        out_THV[split.end :].zero_()


def _step(state_RHKV: Tensor, q_RHK: Tensor, k_RHK: Tensor, v_RHV: Tensor, beta_RH: Tensor, decay_RH: Tensor) -> Tensor:
    """One token of each row; advances the states in place."""
    state_RHKV.mul_(decay_RH.exp()[..., None, None])
    known_RHV = torch.matmul(k_RHK.unsqueeze(-2), state_RHKV).squeeze(-2)
    change_RHV = (v_RHV - known_RHV) * beta_RH.unsqueeze(-1)
    state_RHKV.addcmul_(k_RHK.unsqueeze(-1), change_RHV.unsqueeze(-2))
    return torch.matmul(q_RHK.unsqueeze(-2), state_RHKV).squeeze(-2)


def _chunks(*tensors: Tensor) -> Iterator[list[Tensor]]:
    """Each tensor [N, H, ...] in chunks, heads first."""
    for parts in zip(*(one.split(CHUNK) for one in tensors), strict=True):
        yield [part.transpose(0, 1) for part in parts]


def _chunk(state_HKV: Tensor, q_HCK: Tensor, k_HCK: Tensor, v_HCV: Tensor, beta_HC: Tensor, decay_HC: Tensor) -> Tensor:
    """The tokens of a chunk at once; advances the state in place.

    What each token changes depends on what the earlier ones of the chunk changed: a unit lower triangular system.
    """
    total_HC = decay_HC.cumsum(-1)
    since_HCC = (total_HC.unsqueeze(-1) - total_HC.unsqueeze(-2)).tril().exp().tril()
    write_HCK = k_HCK * beta_HC.unsqueeze(-1)
    system_HCC = write_HCK @ k_HCK.mT * since_HCC
    known_HCV = (write_HCK * total_HC.exp().unsqueeze(-1)) @ state_HKV
    wanted_HCV = v_HCV * beta_HC.unsqueeze(-1) - known_HCV
    change_HCV = torch.linalg.solve_triangular(system_HCC, wanted_HCV, upper=False, unitriangular=True)
    out_HCV: Tensor = (q_HCK * total_HC.exp().unsqueeze(-1)) @ state_HKV + (q_HCK @ k_HCK.mT * since_HCC) @ change_HCV
    left_HC1 = (total_HC[:, -1:] - total_HC).exp().unsqueeze(-1)
    state_HKV.mul_(total_HC[:, -1].exp()[:, None, None]).add_((k_HCK * left_HC1).mT @ change_HCV)
    return out_HCV
