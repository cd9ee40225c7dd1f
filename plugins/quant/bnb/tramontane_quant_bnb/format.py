# SPDX-License-Identifier: Apache-2.0
"""Which modules of a checkpoint bitsandbytes quantized, told by their tensors."""

from __future__ import annotations

import torch
from attrs import frozen

from tramontane.build.formats import FormatPart, Lookup
from tramontane.checkpoint import Checkpoint
from tramontane.config import quantization_config
from tramontane.errors import PlanError
from tramontane_quant_bnb.eightbit import eight_bit
from tramontane_quant_bnb.fourbit import STATE, FourBit
from tramontane_quant_bnb.state import TYPES

Shape = tuple[int, ...]


@frozen
class BnbFormat:
    """A module is 4-bit if it has a description, 8-bit if it is int8, and plain otherwise."""

    name: str = "bnb"

    def part(self, path: str, shape: Shape, lookup: Lookup) -> FormatPart | None:
        """See :meth:`tramontane.build.formats.StoredFormat.part`.

        Raises:
            PlanError: The tensors of a quantized module are not as they should be.
        """
        weight = lookup.stored("weight")
        if weight is None:
            return None
        for kind in TYPES:
            if lookup.stored(STATE + kind) is not None:
                return FourBit.part(weight, STATE + kind, shape, lookup)
        if weight.dtype is torch.int8:
            return eight_bit(weight, lookup)
        if weight.dtype is torch.uint8:
            raise PlanError(f"{weight.name} is uint8, but has no {STATE}nf4 or fp4 that describes it")
        return None


class Format:
    """Finds checkpoints with weights of bitsandbytes."""

    def detect(self, checkpoint: Checkpoint) -> BnbFormat | None:
        """See :meth:`tramontane.build.formats.QuantFormat.detect`."""
        stated = quantization_config(checkpoint.config) or {}
        method = stated.get("quant_method")
        # The first writers of such configurations named no method.
        unnamed = method is None and (stated.get("load_in_4bit") or stated.get("load_in_8bit"))
        return BnbFormat() if method == "bitsandbytes" or unnamed else None
