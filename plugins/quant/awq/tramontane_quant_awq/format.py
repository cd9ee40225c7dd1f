# SPDX-License-Identifier: Apache-2.0
"""Where AWQ keeps a matrix, and how it becomes an affine scheme."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from attrs import frozen
from torch import Tensor

from tramontane.build.formats import FormatPart, Lookup
from tramontane.checkpoint import Checkpoint
from tramontane.errors import PlanError
from tramontane.schemes import Affine, Fields
from tramontane.tensors import Axis, TensorDecl
from tramontane_quant_awq.packing import codes_of, weight_of
from tramontane_quant_awq.settings import Settings, find_settings

Shape = tuple[int, ...]


@frozen
class AwqFormat:
    """The AWQ weights of one checkpoint. A module is in the format if it has a ``qweight``."""

    settings: Settings
    name: str = "awq"

    def part(self, path: str, shape: Shape, lookup: Lookup) -> FormatPart | None:
        """See :meth:`tramontane.build.formats.StoredFormat.part`.

        Raises:
            PlanError: Fields are missing or of a type that is not supported.
        """
        found = {field: lookup.stored(field) for field in ("qweight", "qzeros", "scales")}
        weight, scales = found["qweight"], found["scales"]
        if weight is None:
            return None
        missing = [field for field, stored in found.items() if stored is None]
        if missing or scales is None:
            raise PlanError(f"{weight.name} is there, but no {' and no '.join(missing)}")
        for stored in (weight, found["qzeros"]):
            if stored is not None and stored.dtype is not torch.int32:
                raise PlanError(f"{stored.name} is {stored.dtype}; AWQ weights packed into torch.int32 are supported")
        group = 0 if self.settings.group_size in (-1, shape[-1]) else self.settings.group_size
        scheme = Affine(bits=self.settings.bits, group=group, zero="int", scale_dtype=scales.dtype)
        return FormatPart(scheme, self.fields(group), self.canonical)

    def fields(self, group: int) -> dict[str, TensorDecl]:
        """Where the logical axes lie in what is stored."""
        words = Axis(1, block=len(self.settings.places))
        groups = {"in": Axis(0, block=group)} if group else {}
        return {
            "qweight": TensorDecl("qweight", {"in": Axis(0), "out": words}),
            "qzeros": TensorDecl("qzeros", {**groups, "out": words}),
            "scales": TensorDecl("scales", {**groups, "out": Axis(1)}),
        }

    def canonical(self, tensors: Mapping[str, Tensor], shape: Shape) -> Fields:
        """See :class:`tramontane.build.formats.FormatPart`."""
        bits, places, outputs = self.settings.bits, self.settings.places, shape[-2]
        return {
            "weight": weight_of(tensors["qweight"], bits, places, outputs),
            "scale": tensors["scales"].transpose(-1, -2).contiguous(),
            "zero": codes_of(tensors["qzeros"], bits, places, outputs),
        }


class Format:
    """Finds checkpoints with AWQ weights."""

    def detect(self, checkpoint: Checkpoint) -> AwqFormat | None:
        """See :meth:`tramontane.build.formats.QuantFormat.detect`."""
        settings = find_settings(checkpoint)
        return None if settings is None else AwqFormat(settings)
