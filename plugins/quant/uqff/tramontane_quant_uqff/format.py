# SPDX-License-Identifier: Apache-2.0
"""Finds layers as mistral.rs serializes them; what each kind is says :mod:`tramontane_quant_uqff.kinds`."""

from __future__ import annotations

from attrs import frozen

from tramontane.build.formats import FormatPart, Lookup
from tramontane.checkpoint import Checkpoint
from tramontane_quant_uqff.kinds import part_of
from tramontane_quant_uqff.layer import Layer
from tramontane_quant_uqff.names import FORMAT

Shape = tuple[int, ...]


@frozen
class UqffFormat:
    """The layers of one checkpoint. A module is in the format if it says its kind."""

    name: str = "uqff"

    def part(self, path: str, shape: Shape, lookup: Lookup) -> FormatPart | None:
        """See :meth:`tramontane.build.formats.StoredFormat.part`.

        Raises:
            CheckpointError: The layer is damaged, or of an unknown kind.
        """
        weight = lookup.stored("weight")
        if weight is None or lookup.stored(FORMAT) is None:
            return None
        return part_of(Layer(path, shape, weight, lookup))


class Format:
    """Finds checkpoints with such layers."""

    def detect(self, checkpoint: Checkpoint) -> UqffFormat | None:
        """See :meth:`tramontane.build.formats.QuantFormat.detect`."""
        return UqffFormat() if any(name.endswith(f".{FORMAT}") for name in checkpoint.tensors) else None
