# SPDX-License-Identifier: Apache-2.0
"""Which kernels stock torch offers, and what it prefers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from attrs import define

from tramontane.backends.base import HostBackend
from tramontane.backends.torch.adapted import add_adapted
from tramontane.backends.torch.attention import attend, cache_write
from tramontane.backends.torch.collective import all_gather, all_reduce
from tramontane.backends.torch.experts import experts, router
from tramontane.backends.torch.fused import linear_gated, rotate_write
from tramontane.backends.torch.latent import attend_latent, attend_latent_adapted, latent_write
from tramontane.backends.torch.linear import embed, linear, take_rows
from tramontane.backends.torch.norm import add_rms_norm, layer_norm, rms_norm
from tramontane.backends.torch.pointwise import add, gated_activate, multiply, rope_angles, rotate, scale, softcap
from tramontane.backends.torch.recurrent import causal_conv, gated_delta
from tramontane.memory import available_memory
from tramontane.ops import KernelMaker, Op, reference_kernel

KERNELS: Mapping[str, KernelMaker] = {
    "add": add,
    "add_adapted": add_adapted,
    "add_rms_norm": add_rms_norm,
    "all_gather": all_gather,
    "all_reduce": all_reduce,
    "attend": attend,
    "attend_latent": attend_latent,
    "attend_latent_adapted": attend_latent_adapted,
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
"""Op name -> kernel maker. An op that is missing here runs by its reference."""


@define(eq=False)
class TorchBackend(HostBackend):
    """Stock torch."""

    name: str = "torch"

    def choose_dtype(self, stored: torch.dtype) -> torch.dtype:
        """The stored type, but never float16 on a CPU, where it is slow and overflows."""
        if stored in (torch.bfloat16, torch.float32):
            return stored
        if stored is torch.float16 and self.device.type != "cpu":
            return stored
        return torch.bfloat16 if stored.itemsize <= 2 else torch.float32

    def candidates(self, op: Op) -> Sequence[tuple[str, KernelMaker]]:
        """The stock kernel, then the reference."""
        made = KERNELS.get(op.name)
        reference = ("reference", reference_kernel)
        return (reference,) if made is None else ((f"torch.{op.name}", made), reference)

    def free_memory(self) -> int:
        """What the device, or the machine and its cgroup, has left."""
        if self.device.type == "cuda":
            return int(torch.cuda.mem_get_info(self.device)[0])
        return available_memory()
