# SPDX-License-Identifier: Apache-2.0
"""Which layout a module of a compressed-tensors checkpoint has, told by its tensors.

Layouts as in https://github.com/vllm-project/compressed-tensors.
"""

from __future__ import annotations

import torch
from attrs import frozen

from tramontane.build.formats import FormatPart, Lookup
from tramontane.checkpoint import Checkpoint
from tramontane.errors import PlanError
from tramontane_quant_compressed_tensors.floats import PACKED, SCALE, float4_part, float8_part
from tramontane_quant_compressed_tensors.integers import Integers
from tramontane_quant_compressed_tensors.settings import Settings, find_settings

Shape = tuple[int, ...]


@frozen
class CompressedFormat:
    """The weights of one checkpoint. A module is quantized if it has packed codes, or scales."""

    settings: Settings
    name: str = "compressed-tensors"

    def part(self, path: str, shape: Shape, lookup: Lookup) -> FormatPart | None:
        """See :meth:`tramontane.build.formats.StoredFormat.part`.

        Raises:
            PlanError: A module's settings and its tensors do not go together, or no scheme has them.
        """
        packed, weight, scale = (lookup.stored(field) for field in (PACKED, "weight", SCALE))
        stored = packed or weight
        if stored is None or (packed is None and scale is None):
            return None
        module = stored.name.rpartition(".")[0]
        if scale is None:
            raise PlanError(f"{stored.name} is there, but no {SCALE}")
        group = self.settings.group_of(module)
        args = group.weights
        if args is None:
            raise PlanError(f"{module} is quantized, but its group says nothing of weights")
        if stored.dtype in (torch.int32, torch.int8) and args.type == "int":
            return Integers.part(module, group, args, shape, lookup)
        if packed is not None and packed.dtype is torch.uint8:
            return float4_part(packed, scale, args, lookup)
        if stored.dtype.is_floating_point and stored.dtype.itemsize == 1:
            return float8_part(stored, scale, group, args, lookup)
        raise PlanError(
            f"{stored.name} is {stored.dtype}, which is no layout of {args.type} weights of {args.num_bits} bits; "
            "a checkpoint that was saved before it was compressed is not supported"
        )


class Format:
    """Finds checkpoints of compressed-tensors."""

    def detect(self, checkpoint: Checkpoint) -> CompressedFormat | None:
        """See :meth:`tramontane.build.formats.QuantFormat.detect`."""
        settings = find_settings(checkpoint)
        return None if settings is None else CompressedFormat(settings)
