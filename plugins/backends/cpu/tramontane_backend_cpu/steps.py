# SPDX-License-Identifier: Apache-2.0
"""The batch of a step by address: what native kernels read at run time instead of being told by Python."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from operator import is_

from attrs import define, field
from torch import Tensor

from tramontane.batch import Ctx
from tramontane_backend_cpu import abi

_GROUPS = ctypes.POINTER(abi.Group)
_NO_BATCH = abi.Step()


@define(eq=False)
class Steps:
    """Makes ``tm_step`` from a batch.

    The last one is kept: batches of one size are made of the very same tensor objects, views of fixed buffers, so a
    decoding step finds the addresses of the step before (one microsecond instead of four).
    """

    _tensors: Sequence[Tensor] = field(default=(), init=False)
    _step: abi.Step = field(default=_NO_BATCH, init=False)

    def of(self, ctx: Ctx | None) -> abi.Step:
        """The step of a batch; an empty one for kernels that look at none."""
        if ctx is None:
            return _NO_BATCH
        tensors = _tensors(ctx)
        if len(tensors) != len(self._tensors) or not all(map(is_, tensors, self._tensors)):
            self._step, self._tensors = step_of(ctx), tensors
        return self._step


def _tensors(ctx: Ctx) -> list[Tensor]:
    found = [ctx.ids_T, ctx.positions_KT, ctx.q_start, ctx.kv_len_R, ctx.out_rows_L]
    for group in ctx.groups:
        found += (group.table_RB, group.slot_T)
    if ctx.state_slot_R is not None and ctx.state_fresh_R is not None:
        found += (ctx.state_slot_R, ctx.state_fresh_R)
    return found


def step_of(ctx: Ctx) -> abi.Step:
    """Addresses of the batch's fields. Valid while its tensors live."""
    groups = (abi.Group * len(ctx.groups))()
    for made, group in zip(groups, ctx.groups, strict=True):
        made.table, made.table_stride = group.table_RB.data_ptr(), group.table_RB.stride(0)
        made.slots = group.slot_T.data_ptr()
    positions = ctx.positions_KT
    return abi.Step(
        ctx.ids_T.shape[0], ctx.kv_len_R.shape[0], ctx.out_rows_L.shape[0], positions.shape[0],
        positions.stride(0) * positions.itemsize, ctx.ids_T.data_ptr(), positions.data_ptr(), ctx.out_rows_L.data_ptr(),
        ctx.q_start.data_ptr(), ctx.kv_len_R.data_ptr(), ctypes.cast(groups, _GROUPS), None,
        _address(ctx.state_slot_R), _address(ctx.state_fresh_R),
    )  # fmt: skip


def _address(tensor: Tensor | None) -> int | None:
    return None if tensor is None else tensor.data_ptr()
