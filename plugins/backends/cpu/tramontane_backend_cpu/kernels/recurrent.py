# SPDX-License-Identifier: Apache-2.0
"""Ops with a state per sequence: a short convolution and the gated delta rule.

Legend: C channels, W width of the convolution, H value heads.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from attrs import define, field
from torch import Tensor

from tramontane.ops import CausalConv, GatedDelta
from tramontane.weights import CacheSlot
from tramontane_backend_cpu import abi
from tramontane_backend_cpu.kernel import Engine, NativeKernel
from tramontane_backend_cpu.kernels import checks
from tramontane_backend_cpu.operands import Operand

_STATES = (torch.float32, torch.bfloat16, torch.float16)


@define(eq=False)
class StateView:
    """A layer's one state as ``tm_state``. It exists only once memory is budgeted, after kernels are bound."""

    slot: CacheSlot
    _seen: tuple[Tensor, ...] = field(default=(), init=False)

    def locate(self, params: abi.State, shape: tuple[int, ...], types: Sequence[torch.dtype]) -> str | None:
        """Fill in where the state lies, and hold it against what the kernel works on."""
        states = self.slot.states
        if states is self._seen and states:
            return None
        if len(states) != 1 or tuple(states[0].shape[1:]) != shape or states[0].dtype not in types:
            return f"states {[tuple(state.shape) for state in states]} instead of one of {shape}"
        (state,) = states
        if not state[0].is_contiguous():
            return "a state that does not lie in one piece"
        params.data, params.slot_stride = state.data_ptr(), state.stride(0) * state.itemsize
        params.dtype = abi.DTYPES[state.dtype]
        self._seen = states
        return None


def causal_conv(op: CausalConv, weights: Sequence[Any], engine: Engine) -> NativeKernel | str:
    """Each channel over its last inputs, then an activation."""
    if op.act not in abi.ACTIVATIONS:
        return f"no native {op.act}"
    state, weight_CW = StateView(weights[0]), weights[1].tensor
    weight_WC = weight_CW.float().t().contiguous()
    params = abi.CausalConv(weight=weight_WC.data_ptr(), width=op.width, activation=abi.ACTIVATIONS[op.act])
    channels = weight_CW.shape[0]

    def fit(operands: Sequence[Operand]) -> str | None:
        if any(one.width != channels for one in operands):
            return f"rows of {operands[0].width} elements for {channels} channels"
        return state.locate(params.state, (channels, op.width - 1), _STATES) or checks.alike(operands)

    return NativeKernel(op, weights, engine, "causal_conv", params, fit, keep=(state, weight_WC))


def gated_delta(op: GatedDelta, weights: Sequence[Any], engine: Engine) -> NativeKernel | str:
    """Linear attention by the gated delta rule: (q, k, v, write, keep) -> y."""
    rate_H = weights[1].tensor.float().exp().neg().contiguous()
    shift_H = weights[2].tensor.float().contiguous()
    state, keys, values = StateView(weights[0]), op.key_heads * op.key_dim, op.value_heads * op.value_dim
    params = abi.GatedDelta(
        rate=rate_H.data_ptr(), shift=shift_H.data_ptr(), key_heads=op.key_heads, value_heads=op.value_heads,
        key_dim=op.key_dim, value_dim=op.value_dim,
    )  # fmt: skip
    widths = checks.widths(keys, keys, values, op.value_heads, op.value_heads, values)

    def fit(operands: Sequence[Operand]) -> str | None:
        shape = (op.value_heads, op.key_dim, op.value_dim)
        return widths(operands) or state.locate(params.state, shape, (torch.float32,))

    return NativeKernel(op, weights, engine, "gated_delta", params, fit, keep=(state, rate_H, shift_H))
