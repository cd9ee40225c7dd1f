# SPDX-License-Identifier: Apache-2.0
"""Which weights of a plan are quantized, and to what.

Rules, in order: what is stored quantized stays so; routers and weights used along both axes stay as they are; a
topology rule decides; else the asked type, in its higher form for embeddings and output heads; and the type's fallback
where the shape does not fit. What the rules leave out is said once, with reasons.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable
from enum import Enum

import torch
from attrs import define, evolve, field, frozen
from torch import Tensor

from tramontane.build.plan import ModelPlan, PartPlan, WeightPlan
from tramontane.errors import PlanError
from tramontane.quantization.importance import Importances
from tramontane.quantization.quantizer import Quantizer
from tramontane.quantization.topology import KEEP, Topology
from tramontane.schemes import Dense, Fields

_log = logging.getLogger(__name__)


class Organization(Enum):
    """Which matrices are quantized."""

    DEFAULT = "default"
    """All."""
    MOQE = "moqe"
    """Those of experts only (arXiv 2310.02410)."""


@frozen(kw_only=True)
class Request:
    """What was asked for.

    Attributes:
        default: The type for every matrix that nothing else is said for; ``None`` quantizes only what a rule names.
        find: A type by name; raises where there is none.
        organization: Which matrices ``default`` is for.
        topology: Rules for single layers.
        importances: How much errors of inputs count, for types whose packing weighs them.
        place: Where a module will be, by its path; rules that ask for another device are refused.
        again: Unpack what is stored quantized, and quantize it to what is asked for. Else it stays as it is.
    """

    default: Quantizer | None
    find: Callable[[str], Quantizer] = field(repr=False)
    organization: Organization = Organization.DEFAULT
    topology: Topology | None = None
    importances: Importances = field(factory=dict, repr=False)
    place: Callable[[str], torch.device] = field(default=lambda _: torch.device("cpu"), repr=False)
    again: bool = False


def quantize_plan(plan: ModelPlan, request: Request) -> ModelPlan:
    """The plan with quantized parts.

    Raises:
        UnknownNameError: A topology rule or a fallback names a type that is not installed.
        PlanError: A topology rule asks for a device where the model is not.
    """
    chooser = _Chooser(request)
    weights = tuple(
        evolve(weight, parts=tuple(chooser.part(weight, part) for part in weight.parts)) for weight in plan.weights
    )
    chooser.say()
    return evolve(plan, weights=weights)


@define
class _Chooser:
    """Decides part by part, and counts what it left out."""

    request: Request
    stored: Counter[str] = field(factory=Counter)
    """Parts kept in the format they are stored in although another was asked for."""
    unfit: Counter[str] = field(factory=Counter)
    """Parts of shapes that no type can store."""
    other: Counter[str] = field(factory=Counter)
    """Parts that got a fallback."""
    unweighed: Counter[str] = field(factory=Counter)
    """Parts without importances although others have them."""

    def part(self, weight: WeightPlan, part: PartPlan) -> PartPlan:
        self._check_device(part.path)
        wanted = self._wanted(weight, part.path)
        if wanted is None:
            return part
        if part.source.scheme.plain() == wanted.scheme:
            return part
        if not isinstance(part.source.scheme, Dense) and not self.request.again:
            self.stored[f"{part.source.scheme.name} (asked: {wanted.name})"] += 1
            return part
        chosen = self._fitting(wanted, part.shape)
        if chosen is None:
            return part
        importance = self._importance(part.path) if chosen.weighs else None
        return evolve(part, scheme=chosen.scheme, pack=Packing(chosen, importance))

    def _wanted(self, weight: WeightPlan, path: str) -> Quantizer | None:
        if weight.uses & {"router", "absorbed"}:
            return None
        topology = self.request.topology
        named = None if topology is None else topology.quant(path)
        if named is not None:
            return None if named == KEEP else self.request.find(named)
        default = self.request.default
        if default is None or (self.request.organization is Organization.MOQE and "experts" not in weight.uses):
            return None
        sensitive = "rows" in weight.uses or weight.is_head
        return self.request.find(default.sensitive) if sensitive and default.sensitive else default

    def _fitting(self, wanted: Quantizer, shape: tuple[int, ...]) -> Quantizer | None:
        chosen: Quantizer | None = wanted
        while chosen is not None and not chosen.fits(shape):
            chosen = None if chosen.fallback is None else self.request.find(chosen.fallback)
        what = f"{'x'.join(map(str, shape))} for {wanted.name}"
        if chosen is None:
            self.unfit[what] += 1
        elif chosen != wanted:
            self.other[f"{what}: {chosen.name}"] += 1
        return chosen

    def _importance(self, path: str) -> Tensor | None:
        found = self.request.importances.get(path)
        if found is None and self.request.importances:
            self.unweighed[path.rpartition(".")[2]] += 1
        return found

    def _check_device(self, path: str) -> None:
        topology = self.request.topology
        asked = None if topology is None else topology.device(path)
        if topology is None or asked is None:
            return
        have, wanted = self.request.place(path), torch.device(asked[0])
        if wanted.type != have.type or (wanted.index or 0) != (have.index or 0):
            raise PlanError(
                f"{topology.source}, key {asked[1]!r}: {path} lies on {have}, not on {asked[0]}",
                hint="only whole layers are placed: by ranges such as 0-8, or by --device-map, which then decides",
            )

    def say(self) -> None:
        """Everything that is not as it was asked for, once."""
        said = (
            (logging.WARNING, "kept as stored, not quantized again", self.stored),
            (logging.WARNING, "left in floating point, since rows are not whole blocks", self.unfit),
            (logging.INFO, "quantized without importances, which were not collected for them", self.unweighed),
            (logging.INFO, "of another type than asked, since rows are not whole blocks", self.other),
        )
        for level, what, found in said:
            if found:
                listed = ", ".join(f"{count} x {one}" for one, count in found.items())
                _log.log(level, "%d weights are %s: %s", found.total(), what, listed)


@frozen
class Packing:
    """A type and the importances that its errors are weighed by. Two are equal if they make the same of a weight."""

    quantizer: Quantizer
    importance: Tensor | None = field(eq=id, repr=False)

    def __call__(self, weight: Tensor) -> Fields:
        return self.quantizer.pack(weight, self.importance)
