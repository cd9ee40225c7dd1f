# SPDX-License-Identifier: Apache-2.0
"""Multi-head latent attention with stock torch.

Rows with few queries attend the latents themselves, as one key head that all query heads share; for a row with many it
is cheaper to expand its keys and values once.

Legend: T tokens, Q queries and S keys of a row, H heads, N unrotated and P rotated features of a head, R rank of the
latent, C = R + P, V value dimension.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, ClassVar

import torch
from attrs import define, field
from torch import Tensor
from torch.nn import functional as F

from tramontane.backends.torch.attention import PagedAttention, slots_of
from tramontane.batch import Ctx, HostRows
from tramontane.ops import Attend, AttendLatent, AttendLatentAdapted, Kernel, Op
from tramontane.sequence import NO_ADAPTER
from tramontane.weights import CacheSlot


def latent_write(op: Op, weights: Sequence[Any]) -> Kernel | str:
    """Scatter both parts into the plane."""
    (cache,) = weights

    def run(ctx: Ctx | None, inputs: Sequence[Tensor], outputs: Sequence[Tensor]) -> None:
        c_TR, k_T1P = inputs
        cache.write(slots_of(ctx, cache), torch.cat((c_TR.unsqueeze(1), k_T1P), dim=-1))

    return run


def attend_latent(op: Op, weights: Sequence[Any]) -> Kernel | str:
    """Attention over latents; its matrix must be dense."""
    if not isinstance(op, AttendLatent):
        return f"made for attend_latent, not {op.name}"
    cache, matrix = weights
    return _attention(op, cache, matrix.dequantize())


def _attention(op: AttendLatent, cache: CacheSlot, weight_OR: Tensor) -> _LatentAttention:
    shared = Attend(op.heads, 1, op.rank + op.rope_dim, op.rank, op.scale)
    return _LatentAttention(op, PagedAttention(shared, cache, None), *op.split(weight_OR))


def attend_latent_adapted(op: Op, weights: Sequence[Any]) -> Kernel | str:
    """The rows of each adapter with a matrix made for the step: as many multiplications as its rank, and no copy is
    kept."""
    if not isinstance(op, AttendLatentAdapted):
        return f"made for attend_latent_adapted, not {op.name}"
    attend, (cache, matrix, bank) = op.attend, weights
    if bank.device.type != "cpu":
        return "it reads the batch on the host"
    plain = _attention(attend, cache, matrix.dequantize())

    def run(ctx: Ctx | None, inputs: Sequence[Tensor], outputs: Sequence[Tensor]) -> None:
        if ctx is None or ctx.host is None:
            raise TypeError("the torch backend's attention reads the batch on the host")
        host, (q_THN, q_THP, _) = ctx.host, inputs
        out_THV = outputs[0].view(-1, attend.heads, attend.value_dim)
        rows: dict[int, list[int]] = {}
        for row in range(len(host.kv_len)):
            column = host.columns[row] if host.columns and row < len(host.columns) else NO_ADAPTER
            rows.setdefault(column if column in bank.places else NO_ADAPTER, []).append(row)
        for column, own in rows.items():
            if column == NO_ADAPTER:
                plain.rows(ctx, host, own, q_THN, q_THP, out_THV)
                continue
            weight_OR = matrix.dequantize()
            changed = _attention(attend, cache, (weight_OR.float() + bank.product(column)).to(weight_OR.dtype))
            changed.rows(ctx, host, own, q_THN, q_THP, out_THV)
        if host.q_start[-1] < out_THV.shape[0]:
            out_THV[host.q_start[-1] :].zero_()

    return run


@define(eq=False)
class _LatentAttention:
    """The kernel of one layer."""

    op: AttendLatent
    latents: PagedAttention
    """Over the latents as they are: one key head of C features, whose first R are the value."""
    up_HNR: Tensor = field(repr=False)
    values_HVR: Tensor = field(repr=False)
    reads_host: ClassVar[bool] = True

    def __call__(self, ctx: Ctx | None, inputs: Sequence[Tensor], outputs: Sequence[Tensor]) -> None:
        if ctx is None or ctx.host is None:
            raise TypeError("the torch backend's attention reads the batch on the host")
        host, out_THV = ctx.host, outputs[0].view(-1, self.op.heads, self.op.value_dim)
        q_THN, q_THP = inputs
        self.rows(ctx, host, range(len(host.kv_len)), q_THN, q_THP, out_THV)
        if host.q_start[-1] < out_THV.shape[0]:
            out_THV[host.q_start[-1] :].zero_()  # padding tokens: keep the arena free of stale values

    def rows(
        self, ctx: Ctx, host: HostRows, rows: Iterable[int], q_THN: Tensor, q_THP: Tensor, out_THV: Tensor
    ) -> None:
        """Attend the tokens of some rows."""
        few = []
        for row in rows:
            keys = host.kv_len[row]
            begin, end = host.q_start[row], host.q_start[row + 1]
            if self._many(end - begin, keys):
                q_QHD = torch.cat((q_THN[begin:end], q_THP[begin:end]), dim=-1)
                out_THV[begin:end] = self._expanded(ctx, row, keys, q_QHD)
            else:
                few.append(row)
        if few:
            self._absorbed(ctx, host, few, q_THN, q_THP, out_THV)

    def _many(self, queries: int, keys: int) -> bool:
        """Expanding the keys once costs fewer multiplications than longer products for every query."""
        op = self.op
        longer = (2 * op.rank + op.rope_dim) - (op.nope_dim + op.rope_dim + op.value_dim)
        saved = queries * (keys - queries / 2) * longer + queries * (op.nope_dim + op.value_dim) * op.rank
        return queries > 1 and saved > keys * (op.nope_dim + op.value_dim) * op.rank

    def _expanded(self, ctx: Ctx, row: int, keys: int, q_QHD: Tensor) -> Tensor:
        """Keys and values of every head, then plain attention: [Q, H, V]."""
        queries, rank = q_QHD.shape[0], self.op.rank
        (latent_S1C,) = self.latents.read(ctx, row, 0, keys, q_QHD.dtype)
        c_SR, turned_SP = latent_S1C[:, 0].to(q_QHD.dtype).split((rank, self.op.rope_dim), dim=-1)
        k_HSN, v_HSV = torch.matmul(c_SR, self.up_HNR.mT), torch.matmul(c_SR, self.values_HVR.mT)
        k_HSD = torch.cat((k_HSN, turned_SP.expand(self.op.heads, -1, -1)), dim=-1)
        mask = None
        if queries != keys:
            mask = torch.ones(queries, keys, dtype=torch.bool, device=q_QHD.device).tril_(keys - queries)
        y_1HQV = F.scaled_dot_product_attention(
            q_QHD.transpose(0, 1).unsqueeze(0),
            k_HSD.unsqueeze(0),
            v_HSV.unsqueeze(0),
            attn_mask=mask,
            is_causal=mask is None,
            scale=self.op.scale,
        )
        return y_1HQV[0].transpose(0, 1)

    def _absorbed(
        self, ctx: Ctx, host: HostRows, rows: list[int], q_THN: Tensor, q_THP: Tensor, out_THV: Tensor
    ) -> None:
        """Move each head's matrices to its queries and results, and attend the latents."""
        op = self.op
        tokens = torch.tensor([t for row in rows for t in range(host.q_start[row], host.q_start[row + 1])])
        tokens = tokens.to(q_THN.device)
        q_THC = q_THN.new_empty(q_THN.shape[0], op.heads, op.rank + op.rope_dim)
        moved_HTR = torch.bmm(q_THN[tokens].transpose(0, 1), self.up_HNR)
        q_THC[tokens] = torch.cat((moved_HTR.transpose(0, 1), q_THP[tokens]), dim=-1)
        c_THR = q_THN.new_empty(q_THN.shape[0], op.heads, op.rank)
        self.latents.rows(ctx, host, rows, q_THC, c_THR)
        out_THV[tokens] = torch.bmm(c_THR[tokens].transpose(0, 1), self.values_HVR.mT).transpose(0, 1)
