# SPDX-License-Identifier: Apache-2.0
"""The batch of a step by address: what native kernels read at run time instead of being told by Python."""

from __future__ import annotations

import ctypes

from attrs import define, field

from tramontane.batch import Ctx
from tramontane_backend_cpu import abi


@define(eq=False)
class Steps:
    """Makes ``tm_step`` from a batch, and keeps the last one: the kernels of an eager step share it."""

    _ctx: Ctx | None = field(default=None, init=False)
    _step: abi.Step = field(factory=abi.Step, init=False)

    def of(self, ctx: Ctx | None) -> abi.Step:
        """The step of a batch; an empty one for kernels that look at none."""
        if ctx is None:
            return abi.Step()
        if ctx is not self._ctx:
            self._step, self._ctx = step_of(ctx), ctx
        return self._step


def step_of(ctx: Ctx) -> abi.Step:
    """Addresses of the batch's fields. Valid while ``ctx`` lives."""
    groups = (abi.Group * len(ctx.groups))()
    for made, group in zip(groups, ctx.groups, strict=True):
        made.table, made.table_stride = group.table_RB.data_ptr(), group.table_RB.stride(0)
        made.slots = group.slot_T.data_ptr()
    positions = ctx.positions_KT
    return abi.Step(
        ctx.ids_T.shape[0], ctx.kv_len_R.shape[0], ctx.out_rows_L.shape[0], positions.shape[0],
        positions.stride(0) * positions.itemsize, ctx.ids_T.data_ptr(), positions.data_ptr(), ctx.out_rows_L.data_ptr(),
        ctx.q_start.data_ptr(), ctx.kv_len_R.data_ptr(), ctypes.cast(groups, ctypes.POINTER(abi.Group)), None,
    )  # fmt: skip
