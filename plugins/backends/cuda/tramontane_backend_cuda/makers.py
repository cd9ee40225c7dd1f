# SPDX-License-Identifier: Apache-2.0
"""Which kernels there are, by op, and the rewrite rules that make room for them.

Imported late: Triton decides at its import whether it interprets.
"""

from __future__ import annotations

from collections.abc import Mapping

from tramontane.ops import KernelMaker
from tramontane.tape.rules import Rule
from tramontane_backend_cuda import attention, experts, fused, latent, linear, maps, norm, recurrent, rotate, router

MAKERS: Mapping[str, KernelMaker] = {
    "add_rms_norm": norm.norm,
    "attend": attention.attend,
    "attend_latent": latent.attend_latent,
    "attend_map": attention.attend_map,
    "attend_mapped": maps.attend_mapped,
    "cache_write": rotate.cache_write,
    "causal_conv": recurrent.causal_conv,
    "embed": linear.embed,
    "experts": experts.experts,
    "gated_activate": norm.gated_activate,
    "gated_delta": recurrent.gated_delta,
    "latent_write": rotate.latent_write,
    "linear": linear.linear,
    "linear_add": linear.linear_add,
    "linear_gated": linear.linear_gated,
    "norm_linear": linear.norm_linear,
    "rms_norm": norm.norm,
    "rotate": rotate.rotate,
    "rotate_write": rotate.rotate_write,
    "router": router.router,
}
"""Op name -> kernel maker."""

RULES: tuple[Rule, ...] = (fused.fuse_residual, fused.fuse_norm, maps.share_maps)
"""Rules of this backend, after the core's."""
