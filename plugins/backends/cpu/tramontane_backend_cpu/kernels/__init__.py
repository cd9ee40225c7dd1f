# SPDX-License-Identifier: Apache-2.0
"""Which native kernel runs an op: one maker per op, answering with a bound kernel or the reason why not."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from tramontane.ops import Op
from tramontane_backend_cpu.kernel import Engine, NativeKernel
from tramontane_backend_cpu.kernels.attention import attend, cache_write
from tramontane_backend_cpu.kernels.latent import attend_latent, latent_write
from tramontane_backend_cpu.kernels.linear import embed, linear, linear_gated, take_rows
from tramontane_backend_cpu.kernels.moe import experts, router
from tramontane_backend_cpu.kernels.norm import add_rms_norm, layer_norm, rms_norm
from tramontane_backend_cpu.kernels.pointwise import activate, add, gated_activate, multiply, scale, softcap
from tramontane_backend_cpu.kernels.recurrent import causal_conv, gated_delta
from tramontane_backend_cpu.kernels.rotary import rope_angles, rotate, rotate_write

Maker = Callable[[Any, Sequence[Any], Engine], NativeKernel | str]

MAKERS: Mapping[str, Maker] = {
    "activate": activate,
    "add": add,
    "add_rms_norm": add_rms_norm,
    "attend": attend,
    "attend_latent": attend_latent,
    "cache_write": cache_write,
    "causal_conv": causal_conv,
    "embed": embed,
    "experts": experts,
    "gated_activate": gated_activate,
    "gated_delta": gated_delta,
    "latent_write": latent_write,
    "layer_norm": layer_norm,
    "linear": linear,
    "linear_gated": linear_gated,
    "multiply": multiply,
    "rms_norm": rms_norm,
    "rope_angles": rope_angles,
    "rotate": rotate,
    "rotate_write": rotate_write,
    "router": router,
    "scale": scale,
    "softcap": softcap,
    "take_rows": take_rows,
}
"""Op name -> maker. An op that is missing here runs by stock torch, or by its reference."""


def make(op: Op, weights: Sequence[Any], engine: Engine) -> NativeKernel | str:
    """The native kernel for an op, or why there is none."""
    maker = MAKERS.get(op.name)
    return f"no native kernel for {op.name}" if maker is None else maker(op, weights, engine)
