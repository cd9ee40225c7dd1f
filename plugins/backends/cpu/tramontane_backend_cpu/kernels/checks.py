# SPDX-License-Identifier: Apache-2.0
"""What kernels ask of operands. Each answers with a reason, or ``None`` if all is well."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from tramontane_backend_cpu import abi
from tramontane_backend_cpu.kernel import Fit
from tramontane_backend_cpu.operands import Operand


def activations(operands: Sequence[Operand]) -> str | None:
    """All of one type, float32 or bfloat16."""
    types = {operand.dtype for operand in operands}
    if len(types) > 1 or not types <= set(abi.ACTIVATION_TYPES):
        return f"activations of {', '.join(sorted(map(str, types)))}"
    return None


def alike(operands: Sequence[Operand]) -> str | None:
    """Activations of one shape."""
    if len({(operand.rows, operand.width) for operand in operands}) > 1:
        return "operands of different shapes"
    return activations(operands)


def widths(*wanted: int) -> Fit:
    """Activations with these numbers of elements in a row."""

    def check(operands: Sequence[Operand]) -> str | None:
        found = tuple(operand.width for operand in operands)
        return activations(operands) if found == wanted else f"rows of {list(found)} elements instead of {list(wanted)}"

    return check


def is_type(operand: Operand, dtype: torch.dtype) -> str | None:
    """One operand of a given type."""
    return None if operand.dtype is dtype else f"{operand.dtype} instead of {dtype}"
