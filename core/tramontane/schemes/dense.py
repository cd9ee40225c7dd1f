# SPDX-License-Identifier: Apache-2.0
"""Plain floating-point weights."""

from __future__ import annotations

from typing import Any

import torch
from attrs import field, frozen
from torch import Tensor

from tramontane.errors import PlanError
from tramontane.schemes.base import Field, Fields, Scheme, Shape, make_field
from tramontane.tensors import Axis

_NAMES = {torch.float64: "f64", torch.float32: "f32", torch.float16: "f16", torch.bfloat16: "bf16"}


def _is_float(_: object, __: Any, dtype: torch.dtype) -> None:
    if dtype not in _NAMES:
        raise PlanError(f"dense weights are floating point, not {dtype}")


@frozen
class Dense(Scheme):
    """``weight`` [O, I] of ``dtype``."""

    dtype: torch.dtype = field(default=torch.float32, validator=_is_float)

    @property
    def name(self) -> str:
        """``f32``, ``bf16`` ..."""
        return _NAMES[self.dtype]

    def matrix_fields(self, out_features: int, in_features: int) -> dict[str, Field]:
        """See :meth:`Scheme.matrix_fields`."""
        return {"weight": make_field("weight", self.dtype, (out_features, in_features), out=Axis(0), into=Axis(1))}

    def dequantize(self, fields: Fields, shape: Shape) -> Tensor:
        """See :meth:`Scheme.dequantize`."""
        return fields["weight"].to(torch.float32).view(shape)

    def quantize(self, weight: Tensor) -> dict[str, Tensor]:
        """See :meth:`Scheme.quantize`; a conversion of the element type."""
        return {"weight": weight.to(self.dtype)}
