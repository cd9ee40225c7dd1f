# SPDX-License-Identifier: Apache-2.0
"""GGML block types as one scheme. Legend: O outputs, I inputs.

The block layouts are those of ggml (https://github.com/ggml-org/ggml); each file of this package states one. A plugin
brings further types by making a :class:`BlockCodec` and passing it to :class:`Ggml`.
"""

from __future__ import annotations

import torch
from attrs import field, frozen
from torch import Tensor

from tramontane.errors import PlanError
from tramontane.schemes.base import Field, Fields, Scheme, Shape, make_field
from tramontane.schemes.ggml.codec import BlockCodec
from tramontane.schemes.ggml.plain import BF16, F16, F32
from tramontane.schemes.ggml.q2_k import Q2_K
from tramontane.schemes.ggml.q3_k import Q3_K
from tramontane.schemes.ggml.q4_0 import Q4_0
from tramontane.schemes.ggml.q4_1 import Q4_1
from tramontane.schemes.ggml.q4_k import Q4_K
from tramontane.schemes.ggml.q5_0 import Q5_0
from tramontane.schemes.ggml.q5_1 import Q5_1
from tramontane.schemes.ggml.q5_k import Q5_K
from tramontane.schemes.ggml.q6_k import Q6_K
from tramontane.schemes.ggml.q8_0 import Q8_0
from tramontane.tensors import Axis

CODECS = {codec.name: codec for codec in (F32, F16, BF16, Q4_0, Q4_1, Q5_0, Q5_1, Q8_0, Q2_K, Q3_K, Q4_K, Q5_K, Q6_K)}
"""The types that core itself unpacks, by name."""


def codec_of(kind: str | BlockCodec) -> BlockCodec:
    """A codec, or the built-in one of that name.

    Raises:
        PlanError: There is no built-in type of that name.
    """
    if isinstance(kind, BlockCodec):
        return kind
    found = CODECS.get(kind.lower())
    if found is None:
        raise PlanError(f"there is no GGML type {kind!r} here (there are {', '.join(CODECS)})")
    return found


@frozen
class Ggml(Scheme):
    """``weight`` uint8 [O, I / block * nbytes]: the blocks of a row back to back, as in the file.

    Attributes:
        type: The block type; a name of a built-in one is accepted.
    """

    type: BlockCodec = field(default=Q4_0, converter=codec_of)

    @property
    def name(self) -> str:
        """``q4_k`` ..."""
        return self.type.name

    def matrix_fields(self, out_features: int, in_features: int) -> dict[str, Field]:
        """See :meth:`Scheme.matrix_fields`."""
        block, nbytes = self.type.block, self.type.nbytes
        if in_features % block:
            raise PlanError(
                f"rows of {in_features} inputs are not whole {self.name} blocks of {block}",
                hint="a type with smaller blocks may fit: q8_0, q5_0, q4_0 have 32",
            )
        shape = (out_features, in_features // block * nbytes)
        axes = {"out": Axis(0), "into": Axis(1, block=block, width=nbytes)}
        return {"weight": make_field("weight", torch.uint8, shape, **axes)}

    def dequantize(self, fields: Fields, shape: Shape) -> Tensor:
        """See :meth:`Scheme.dequantize`."""
        return self.type.dequantize(fields["weight"].reshape(-1, self.type.nbytes)).reshape(shape)

    def quantize(self, weight: Tensor) -> dict[str, Tensor]:
        """See :meth:`Scheme.quantize`."""
        if self.type.quantize is None:
            return super().quantize(weight)
        shape = self.fields(tuple(weight.shape))["weight"].shape
        blocks = self.type.quantize(weight.to(torch.float32).reshape(-1, self.type.block))
        return {"weight": blocks.reshape(shape)}


__all__ = ["CODECS", "BlockCodec", "Ggml", "codec_of"]
