# SPDX-License-Identifier: Apache-2.0
"""Tensors as the kernels take them."""

from __future__ import annotations

import torch
from torch import Tensor


def rows_of(x: Tensor) -> Tensor:
    """[.., D] as rows [M, D] whose features lie side by side."""
    flat = x.reshape(-1, x.shape[-1])
    return flat if flat.stride(-1) == 1 else flat.contiguous()


def exact(x: Tensor) -> bool:
    """Float32 on a card: who asks for it wants exactness, and Triton's product of pieces reads misaligned there."""
    return x.is_cuda and x.dtype is torch.float32
