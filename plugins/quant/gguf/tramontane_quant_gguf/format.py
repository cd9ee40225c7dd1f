# SPDX-License-Identifier: Apache-2.0
"""How matrices stored in blocks become the scheme that they already are: nothing is converted."""

from __future__ import annotations

from collections.abc import Mapping

from attrs import frozen
from torch import Tensor

from tramontane.build.formats import FormatPart, Lookup
from tramontane.checkpoint import Checkpoint
from tramontane.errors import CheckpointError
from tramontane.schemes import Dense, Fields, Ggml
from tramontane.tensors import Axis, TensorDecl
from tramontane_quant_gguf.codecs import CODECS

Shape = tuple[int, ...]
DIALECT = "gguf:"


@frozen
class BlockFormat:
    """Matrices in GGML blocks, each of a type of its own; matrices of one row may be stored as vectors."""

    name: str = "gguf"

    def part(self, path: str, shape: Shape, lookup: Lookup) -> FormatPart | None:
        """See :meth:`tramontane.build.formats.StoredFormat.part`.

        Raises:
            CheckpointError: The stored rows are not as long as the model's.
        """
        stored = lookup.stored("weight")
        if stored is None:
            return None
        if not stored.encoding and len(stored.shape) == 1 and shape == (1, *stored.shape):
            row = TensorDecl("weight", {"out": Axis(0), "in": Axis(1)}, view=(1, -1))
            return FormatPart(Dense(stored.dtype), {"weight": row}, _same)
        codec = CODECS.get(stored.encoding)
        if codec is None:
            return None
        if stored.shape[-1] // codec.nbytes * codec.block != shape[-1]:
            raise CheckpointError(
                f"{stored.name} has rows of {stored.shape[-1] // codec.nbytes * codec.block} elements in {codec.name} "
                f"blocks; the model wants rows of {shape[-1]} for {path}"
            )
        decl = TensorDecl("weight", {"out": Axis(0), "in": Axis(1, block=codec.block, width=codec.nbytes)})
        return FormatPart(Ggml(codec), {"weight": decl}, _same)


def _same(tensors: Mapping[str, Tensor], shape: Shape) -> Fields:
    return tensors


class Format:
    """Finds checkpoints that hold GGML blocks, whoever opened them."""

    def detect(self, checkpoint: Checkpoint) -> BlockFormat | None:
        """See :meth:`tramontane.build.formats.QuantFormat.detect`."""
        here = checkpoint.dialect.startswith(DIALECT)
        return BlockFormat() if here or any(ref.encoding in CODECS for ref in checkpoint.tensors.values()) else None
