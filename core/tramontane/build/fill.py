# SPDX-License-Identifier: Apache-2.0
"""Loading weights: read a part, bring it to the scheme it is kept in, hand it to the backend's storage, go on.

The whole model is never in memory twice: one part is in flight at a time.
"""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor

from tramontane.backends.base import Backend
from tramontane.build.blueprint import Blueprint
from tramontane.build.plan import ModelPlan, ParamPlan, PartPlan
from tramontane.progress import Counter, Progress, silent
from tramontane.schemes import Dense, Fields
from tramontane.weights import Stored


class Layouts(Protocol):
    """Weights that an earlier start laid out."""

    def restore(self, stored: Stored, path: str, part: int) -> bool:
        """Give a part of the matrix at ``path`` its memory; false where there is none to give."""
        ...


def fill_weights(
    plan: ModelPlan,
    blueprint: Blueprint,
    backend: Backend,
    progress: Progress | None = None,
    layouts: Layouts | None = None,
) -> None:
    """Load everything that the plan names into the blueprint's weights, from ``layouts`` what they hold.

    Raises:
        CheckpointError: A tensor cannot be read.
    """
    counter = Counter(progress or silent, "load", plan.nbytes)
    for constant in blueprint.constants.values():  # first: tables of long contexts take more while they are made
        constant.value = constant.make().to(constant.device or backend.device)
    for weight in plan.weights:
        matrix = blueprint.matrices[weight.path]
        matrix.schemes = tuple(part.scheme for part in weight.parts)
        matrix.stored = backend.store(matrix, plan.dtype)
        for index, part in enumerate(weight.parts):
            if layouts is None or not layouts.restore(matrix.stored, weight.path, index):
                matrix.stored.fill(index, bring(part))
            counter.add(part.nbytes, part.path)
    for planned in plan.params:
        param = blueprint.params[planned.path]
        param.value = _read_param(planned, param.offset).to(backend.at(planned.path).device)
        counter.add(planned.nbytes, planned.path)


def bring(part: PartPlan) -> Fields:
    """One part in the scheme it is kept in."""
    fields = part.source.read()
    stored = part.source.scheme
    if stored == part.scheme:
        return fields
    if stored.plain() == part.scheme:  # its rule for activations is not wanted
        return {name: value for name, value in fields.items() if name != "act_scale"}
    if isinstance(stored, Dense) and isinstance(part.scheme, Dense):
        return fields  # storages convert while they copy, so no second copy is made here
    weight = fields["weight"] if isinstance(stored, Dense) else stored.dequantize(fields, part.shape)
    return part.scheme.quantize(weight) if part.pack is None else part.pack(weight)


def _read_param(planned: ParamPlan, offset: float) -> Tensor:
    pieces = [source.read() for source in planned.sources]
    joined = pieces[0] if len(pieces) == 1 else torch.cat(pieces, dim=-1)
    # A copy, never the mapped page: these are few and small, and are read in every step.
    value = joined.to(planned.dtype, copy=True)
    if planned.zero:
        return value.zero_()
    return value.add_(offset) if offset else value
