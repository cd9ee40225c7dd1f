# SPDX-License-Identifier: Apache-2.0
"""Half-quadratic quantization: float zero points fitted to weights with outliers, without any calibration data.

Source: Badri and Shaji, "Half-Quadratic Quantization of Large Machine Learning Models" (2023). The error
``|W - (Q - z) s|_p`` with p < 1 is split in two: E takes the outliers by a shrinkage step, then the best z for what is
left is a mean. Scales stay those of plain rounding.

Legend: G groups, N elements of a group.
"""

from __future__ import annotations

import torch
from torch import Tensor

from tramontane.quantization.columns import columns_of, rounded, total
from tramontane.schemes import Affine
from tramontane.schemes.packing import pack


def fit(scheme: Affine, weight: Tensor, *, p: float = 0.7, beta: float = 10.0, rounds: int = 20) -> dict[str, Tensor]:
    """Canonical fields of a weight [O, I].

    Args:
        scheme: Groups along the inputs, float zero points.
        weight: Floating point.
        p: Norm of the error; lower lets outliers be outliers.
        beta: Weight of the quadratic part at the start; it grows by 1 % a round.
        rounds: Most rounds; a group has fewer where its error stops falling.
    """
    start, width = scheme.quantize(weight), weight.shape[-1]
    padding = weight[:, -1:].expand(-1, -width % scheme.group)  # a ragged last group repeats its last value
    values_NG = columns_of(torch.cat([weight, padding], -1).float(), scheme.group)
    scale_1G, zero_1G = (start[name].float().reshape(1, -1) + 0.0 for name in ("scale", "zero"))
    ratio_NG, size, top = values_NG / scale_1G, scheme.group, 2**scheme.bits - 1
    kept_1G, best_1G = zero_1G, torch.full_like(zero_1G, torch.inf)
    falling_1G = torch.ones_like(zero_1G, dtype=torch.bool)
    for _ in range(rounds):
        codes_NG = rounded(ratio_NG + zero_1G, 0, top)
        rest_NG = values_NG - (codes_NG - zero_1G) * scale_1G
        error_1G = total(rest_NG.abs()) / size
        falling_1G = falling_1G & (error_1G < best_1G)
        if not falling_1G.any():
            break
        best_1G = torch.where(falling_1G, error_1G, best_1G)
        kept_1G = torch.where(falling_1G, zero_1G, kept_1G)
        outliers_NG = _outliers(rest_NG, p, beta)
        inner_NG = ratio_NG if outliers_NG is None else (values_NG - outliers_NG) / scale_1G
        zero_1G = total(codes_NG - inner_NG) / size
        beta *= 1.01
    stored_1G = kept_1G.to(scheme.scale_dtype)
    codes_NG = rounded(ratio_NG + stored_1G.float(), 0, top)
    codes = codes_NG.t().reshape(len(weight), -1)[:, :width]
    return {"weight": pack(codes, scheme.bits), "scale": start["scale"], "zero": stored_1G.reshape(start["zero"].shape)}


def _outliers(rest: Tensor, p: float, beta: float) -> Tensor | None:
    """What is left of errors after shrinkage; ``None`` if nothing is, as for weights of usual size."""
    size = rest.abs()
    if size.amax() <= 0.999 * beta ** (-1 / (2 - p)):
        return None
    return rest.sign() * (size - size.clamp(min=1e-8).pow(p - 1) / beta).clamp(min=0)
