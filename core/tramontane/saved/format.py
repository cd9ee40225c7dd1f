# SPDX-License-Identifier: Apache-2.0
"""Reading what :mod:`tramontane.saved.write` wrote: fields are taken as they lie in the file."""

from __future__ import annotations

from collections.abc import Mapping

from attrs import field, frozen
from torch import Tensor

from tramontane.build.formats import FormatPart, Lookup
from tramontane.checkpoint import Checkpoint
from tramontane.saved.description import Description
from tramontane.schemes import Fields, Shape


@frozen
class BoundSaved:
    """The form, bound to a description."""

    description: Description = field(repr=False)
    name: str = "tramontane"

    def part(self, path: str, shape: Shape, lookup: Lookup) -> FormatPart | None:
        """See :meth:`tramontane.build.formats.StoredFormat.part`."""
        scheme = self.description.parts.get(path)
        if scheme is None:
            return None
        fields = scheme.fields(shape[-2:])
        return FormatPart(scheme, {name: one.decl for name, one in fields.items()}, _same)


def _same(tensors: Mapping[str, Tensor], shape: Shape) -> Fields:
    return tensors


class SavedFormat:
    """Finds models that this project saved."""

    def detect(self, checkpoint: Checkpoint) -> BoundSaved | None:
        """See :meth:`tramontane.build.formats.QuantFormat.detect`."""
        found = Description.of(checkpoint.metadata)
        return None if found is None else BoundSaved(found)
