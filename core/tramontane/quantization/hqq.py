# SPDX-License-Identifier: Apache-2.0
"""Half-quadratic quantization: float zero points fitted to weights with outliers, without any calibration data.

Source: Badri and Shaji, "Half-Quadratic Quantization of Large Machine Learning Models" (2023). The error
``|W - (Q - z) s|_p`` with p < 1 is split in two: E takes the outliers by a shrinkage step, then the best z for what is
left is a mean. Scales stay those of plain rounding.
"""

from __future__ import annotations

import torch
from torch import Tensor

from tramontane.schemes import Affine
from tramontane.schemes.packing import pack


def fit(scheme: Affine, weight: Tensor, *, p: float = 0.7, beta: float = 10.0, rounds: int = 20) -> dict[str, Tensor]:
    """Canonical fields of a weight [O, I].

    Args:
        scheme: Groups along the inputs, float zero points.
        weight: Floating point.
        p: Norm of the error; lower lets outliers be outliers.
        beta: Weight of the quadratic part at the start; it grows by 1 % a round.
        rounds: Most rounds; fewer where the error stops falling.
    """
    start, columns = scheme.quantize(weight), weight.shape[-1]
    padding = weight[:, -1:].expand(-1, -columns % scheme.group)  # a ragged last group repeats its last value
    values = torch.cat([weight, padding], -1).float().unflatten(-1, (-1, scheme.group))
    scale = start["scale"].float().unsqueeze(-1)
    zero = start["zero"].float().unsqueeze(-1)
    top, best, kept = 2**scheme.bits - 1, float("inf"), zero
    for _ in range(rounds):
        codes = (values / scale + zero).round().clamp(0, top)
        rest = values - (codes - zero) * scale
        error = rest.abs().mean().item()
        if error >= best:
            break
        best, kept = error, zero
        outliers = rest.sign() * (rest.abs() - rest.abs().clamp(min=1e-8).pow(p - 1) / beta).clamp(min=0)
        zero = (codes - (values - outliers) / scale).mean(-1, keepdim=True)
        beta *= 1.01
    stored = kept.to(scheme.scale_dtype)
    codes = (values / scale + stored.float()).round().clamp(0, top).flatten(-2)[:, :columns]
    return {"weight": pack(codes, scheme.bits), "scale": start["scale"], "zero": stored.squeeze(-1)}
