# SPDX-License-Identifier: Apache-2.0
"""What a scheme's rule for activations makes of them: rounded to eight bits under their scales, and back to floats.

Scales and rounding are those of compressed-tensors: the largest magnitude under a scale becomes 448 (fp8, e4m3) or
127.5 (int8), values are clamped, and halves go to even. A product in eight bits with exact sums gives the same.

A scale that is computed for a whole tensor is computed for each token instead: what is computed in one step are tokens
of several requests, and an answer must not depend on its neighbours.

Legend: T tokens, I inputs.
"""

from __future__ import annotations

import torch
from torch import Tensor

from tramontane.errors import PlanError
from tramontane.schemes.base import Act

_LARGEST = {"fp8": torch.finfo(torch.float8_e4m3fn).max, "int8": 127.5}


def rounded_activations(act: Act, x_TI: Tensor, scale: Tensor | None = None) -> Tensor:
    """The activations that the product sees, in their own type.

    Args:
        act: The rule.
        x_TI: Floating point [.., I].
        scale: The static scale [], for rules that have one.

    Raises:
        PlanError: A static scale is missing.
    """
    if act.kind == "none":
        return x_TI
    values = x_TI.float()
    if act.scale == "static":
        if scale is None:
            raise PlanError("a static rule for activations needs its scale")
        return (_rounded(values / scale, act.kind) * scale).to(x_TI.dtype)
    if act.per != "group":
        return _dynamic(values, act.kind).to(x_TI.dtype)
    inputs = values.shape[-1]
    padded = torch.nn.functional.pad(values, (0, -inputs % act.group))
    grouped = _dynamic(padded.unflatten(-1, (-1, act.group)), act.kind)
    return grouped.flatten(-2)[..., :inputs].to(x_TI.dtype)


def _dynamic(values: Tensor, kind: str) -> Tensor:
    """Under one scale for the last axis."""
    scale = values.abs().amax(-1, keepdim=True) / _LARGEST[kind]
    scale = torch.where(scale == 0, torch.full_like(scale, torch.finfo(torch.float32).eps), scale)
    return _rounded(values / scale, kind) * scale


def _rounded(scaled: Tensor, kind: str) -> Tensor:
    if kind == "int8":
        return scaled.round().clamp(-128, 127)
    largest = _LARGEST["fp8"]
    return scaled.clamp(-largest, largest).to(torch.float8_e4m3fn).float()
