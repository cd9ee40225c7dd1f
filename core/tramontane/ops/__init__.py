# SPDX-License-Identifier: Apache-2.0
"""The op table: what a model may ask a backend to do, each with its slow, correct version."""

from tramontane.ops.adapted import AddAdapted, AttendLatentAdapted
from tramontane.ops.attention import Attend, CacheWrite
from tramontane.ops.base import OPS, Op, op
from tramontane.ops.bound import BoundOp, Choice, Kernel, KernelMaker, Runtime, reads_host, reference_kernel
from tramontane.ops.collective import AllGather, AllReduce, EmbedPart, OwnExperts
from tramontane.ops.dense import Embed, Linear, TakeRows
from tramontane.ops.fused import LinearGated, RotateWrite
from tramontane.ops.latent import AttendLatent, LatentWrite
from tramontane.ops.moe import Experts, Router
from tramontane.ops.norm import AddRmsNorm, LayerNorm, RmsNorm
from tramontane.ops.pointwise import (
    ACTIVATIONS,
    Activate,
    Add,
    ClampedSwiglu,
    Gate,
    GatedActivate,
    Multiply,
    Scale,
    Softcap,
)
from tramontane.ops.recurrent import CausalConv, GatedDelta
from tramontane.ops.rotary import RopeAngles, Rotate

__all__ = [
    "ACTIVATIONS",
    "OPS",
    "Activate",
    "Add",
    "AddAdapted",
    "AddRmsNorm",
    "AllGather",
    "AllReduce",
    "Attend",
    "AttendLatent",
    "AttendLatentAdapted",
    "BoundOp",
    "CacheWrite",
    "CausalConv",
    "Choice",
    "ClampedSwiglu",
    "Embed",
    "EmbedPart",
    "Experts",
    "Gate",
    "GatedActivate",
    "GatedDelta",
    "Kernel",
    "KernelMaker",
    "LatentWrite",
    "LayerNorm",
    "Linear",
    "LinearGated",
    "Multiply",
    "Op",
    "OwnExperts",
    "RmsNorm",
    "RopeAngles",
    "Rotate",
    "RotateWrite",
    "Router",
    "Runtime",
    "Scale",
    "Softcap",
    "TakeRows",
    "op",
    "reads_host",
    "reference_kernel",
]
