# SPDX-License-Identifier: Apache-2.0
"""What is done to activations beside quantized weights, as far as a scheme can say it.

What it cannot say (zero points, 4 bits) is left out: activations then stay as they are, which loses nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from torch import Tensor

from tramontane.build.formats import Lookup
from tramontane.schemes import NO_ACT, Act
from tramontane_quant_compressed_tensors.settings import Args

STATIC = "input_scale"
FIELDS = (
    STATIC, "input_zero_point", "input_global_scale", "output_scale", "output_zero_point", "weight_shape",
)  # fmt: skip
"""Fields that say nothing about a weight, beyond what its own shape says."""


def act_of(args: Args | None, lookup: Lookup) -> Act:
    """The rule for a module's inputs."""
    if args is None or args.num_bits != 8 or not args.symmetric:
        return NO_ACT
    kind: Literal["fp8", "int8"] = "fp8" if args.type == "float" else "int8"
    if not args.dynamic:
        return Act(kind, "static", "tensor") if args.kind == "tensor" and lookup.stored(STATIC) else NO_ACT
    if args.kind == "group" and args.group_size:
        return Act(kind, per="group", group=args.group_size)
    return Act(kind, per="tensor" if args.kind == "tensor" else "token")


def act_fields(act: Act, tensors: Mapping[str, Tensor], lead: tuple[int, ...]) -> dict[str, Tensor]:
    """The canonical field of a static scale."""
    return {"act_scale": tensors[STATIC].float().reshape(lead)} if act.scale == "static" else {}
