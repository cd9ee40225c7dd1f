# SPDX-License-Identifier: Apache-2.0
"""8-bit floating-point weights with scales. Legend: O outputs, I inputs."""

from __future__ import annotations

from typing import Literal

import torch
from attrs import field, frozen
from attrs.validators import in_
from torch import Tensor

from tramontane.errors import PlanError
from tramontane.schemes.base import Field, Fields, Scheme, Shape, make_field, require_float
from tramontane.tensors import Axis

_DTYPES = {"e4m3": torch.float8_e4m3fn, "e5m2": torch.float8_e5m2}


@frozen
class Float8(Scheme):
    """``weight`` float8 [O, I] and ``scale``: ``w = weight * scale``.

    Attributes:
        fmt: ``e4m3`` (the finite-only form, largest value 448) or ``e5m2`` (57344); arXiv 2209.05433.
        granularity: One scale per ``tensor`` [], per ``channel`` (output) [O], or per ``block`` [O / r, I / c].
        block: ``(r, c)`` outputs and inputs per block; ragged edges are smaller blocks.
        scale_dtype: Element type of the scales; ``float8_e8m0fnu`` where they are powers of two.
    """

    fmt: Literal["e4m3", "e5m2"] = field(default="e4m3", validator=in_(tuple(_DTYPES)))
    granularity: Literal["tensor", "channel", "block"] = field(
        default="tensor", validator=in_(("tensor", "channel", "block"))
    )
    block: tuple[int, int] | None = None
    scale_dtype: torch.dtype = torch.float32

    def __attrs_post_init__(self) -> None:
        if (self.granularity == "block") != (self.block is not None) or (self.block and min(self.block) < 1):
            raise PlanError(f"not a possible scheme: {self!r}")
        require_float(self.scale_dtype, "scales", least=1)

    @property
    def name(self) -> str:
        """Such as ``fp8-e4m3-channel`` or ``fp8-e4m3-128x128``."""
        return f"fp8-{self.fmt}-{'x'.join(map(str, self.block)) if self.block else self.granularity}"

    @property
    def dtype(self) -> torch.dtype:
        """Element type of the weight."""
        return _DTYPES[self.fmt]

    def matrix_fields(self, out_features: int, in_features: int) -> dict[str, Field]:
        """See :meth:`Scheme.matrix_fields`."""
        weight = make_field("weight", self.dtype, (out_features, in_features), out=Axis(0), into=Axis(1))
        if self.block:
            rows, columns = Axis(0, block=self.block[0]), Axis(1, block=self.block[1])
            shape: Shape = (rows.stored_size(out_features), columns.stored_size(in_features))
            scale = make_field("scale", self.scale_dtype, shape, out=rows, into=columns)
        elif self.granularity == "channel":
            scale = make_field("scale", self.scale_dtype, (out_features,), out=Axis(0))
        else:
            scale = make_field("scale", self.scale_dtype, ())
        return {"weight": weight, "scale": scale}

    def dequantize(self, fields: Fields, shape: Shape) -> Tensor:
        """See :meth:`Scheme.dequantize`."""
        return fields["weight"].to(torch.float32) * self._spread(fields["scale"].to(torch.float32), shape)

    def quantize(self, weight: Tensor) -> dict[str, Tensor]:
        """See :meth:`Scheme.quantize`: the largest magnitude under each scale becomes the largest finite value."""
        values, shape = weight.to(torch.float32), tuple(weight.shape)
        largest = torch.finfo(self.dtype).max
        scale = self._largest(values.abs()) / largest
        scale = torch.where(scale == 0, torch.ones_like(scale), scale)
        if self.scale_dtype == torch.float8_e8m0fnu:  # the next power of two, so that nothing overflows
            scale = torch.exp2(scale.log2().ceil())
        scale = scale.to(self.scale_dtype)
        scaled = values / self._spread(scale.to(torch.float32), shape)
        return {"weight": scaled.clamp(-largest, largest).to(self.dtype), "scale": scale}

    def gather(self, fields: Fields, shape: Shape, rows: Tensor) -> Tensor:
        """See :meth:`Scheme.gather`; a row takes the scales of the block row it lies in."""
        if not self.block:
            return super().gather(fields, shape, rows)
        weight = fields["weight"].view(torch.uint8).index_select(0, rows).view(self.dtype).to(torch.float32)
        scale = fields["scale"].to(torch.float32).index_select(0, rows // self.block[0])
        return weight * scale.repeat_interleave(self.block[1], -1)[:, : shape[-1]]

    def _spread(self, scale: Tensor, shape: Shape) -> Tensor:
        """A scale per element, broadcastable to the weight."""
        if self.block:
            *_, rows, columns = shape
            wide = scale.repeat_interleave(self.block[0], -2).repeat_interleave(self.block[1], -1)
            return wide[..., :rows, :columns]
        return scale.unsqueeze(-1) if self.granularity == "channel" else scale[..., None, None]

    def _largest(self, magnitude: Tensor) -> Tensor:
        """Largest magnitude under each scale, in the shape of ``scale``."""
        if not self.block:
            return magnitude.amax(-1) if self.granularity == "channel" else magnitude.amax((-1, -2))
        *lead, rows, columns = magnitude.shape
        (r, c) = self.block
        padded = torch.nn.functional.pad(magnitude, (0, -columns % c, 0, -rows % r))
        return padded.view(*lead, padded.shape[-2] // r, r, padded.shape[-1] // c, c).amax((-1, -3))
