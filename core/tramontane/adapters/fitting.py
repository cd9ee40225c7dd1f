# SPDX-License-Identifier: Apache-2.0
"""From an adapter's modules to the matrices of a model.

An adapter names modules as Hugging Face checkpoints do, so the architecture's own weight map finds them: what is fused
there and parted here is cut along the outputs, and the other way round. Everything that does not fit is found at once.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import torch
from attrs import define, field, frozen

from tramontane.adapters.adapter import Adapter, LowRank
from tramontane.adapters.bank import Piece, bank_bytes
from tramontane.checkpoint import TensorRef
from tramontane.errors import AdapterError, CheckpointError, PlanError
from tramontane.tensors import Axis, TensorDecl
from tramontane.weightmap import Read, WeightMap, choose, tensor_name
from tramontane.weights import Matrix, Part

MAX_NAMED = 8
"""Modules named per fault."""
_DOWN, _UP = "lora_A", "lora_B"
_DECLARED = {_DOWN: TensorDecl(_DOWN, {"in": Axis(1)}), _UP: TensorDecl(_UP, {"out": Axis(0)})}
_WHY_NOT = {
    "rows": "token embeddings",
    "experts": "experts",
    "router": "routers",
}
"""Use of a matrix -> what people call it; adapters of these are refused."""


@frozen(eq=False)
class Targets:
    """What an adapter of one model can name."""

    model: str
    """For messages."""
    matrices: Mapping[str, Matrix]
    adaptable: frozenset[str]
    """Paths of the matrices that linear layers of the body use, or latent attention absorbs."""
    maps: Sequence[WeightMap]
    """Between the model's names and those of its Hugging Face checkpoints."""

    def refusal(self, matrix: Matrix) -> str | None:
        """Why a matrix cannot be adapted; ``None`` where it can."""
        if matrix.path in self.adaptable:
            return None
        return next((why for use, why in _WHY_NOT.items() if use in matrix.uses), "the output head")


@frozen(eq=False)
class FittedPart:
    """What an adapter adds to one part of a matrix."""

    down: Read
    up: Read
    scale: float

    @property
    def rank(self) -> int:
        """Rank of this pair."""
        return self.down.shape[0]

    def read(self, dtype: torch.dtype) -> Piece:
        """The pair in memory.

        Raises:
            AdapterError: It holds numbers that are not finite.
        """
        down_rI, up_rO = self.down.run().to(dtype), (self.up.run().float() * self.scale).to(dtype).t()
        if not (down_rI.isfinite().all() and up_rO.isfinite().all()):
            raise AdapterError(f"a pair of rank {self.rank} holds numbers that are infinite, or no numbers, as {dtype}")
        return Piece(down_rI, up_rO)


@frozen(eq=False)
class Fitted:
    """An adapter on a model: matrix path -> part -> what is added."""

    parts: Mapping[str, Mapping[int, FittedPart]]
    rank: int
    """The largest rank."""
    nbytes: int
    """Most bytes that its banks grow by."""


def fit(adapter: Adapter, targets: Targets, dtype: torch.dtype) -> Fitted:
    """Find the matrix of every module that the adapter changes.

    Raises:
        AdapterError: Modules are unknown, of another shape, or of a kind that cannot be adapted; all kinds of fault are
            told in one message.
    """
    fitting = _Fitting(adapter, targets)
    parts = {matrix.path: found for matrix in targets.matrices.values() if (found := fitting.matrix(matrix))}
    fitting.raise_any()
    nbytes, largest = 0, 0
    for path, found in parts.items():
        ranks = {part: one.rank for part, one in found.items()}
        nbytes += bank_bytes(targets.matrices[path], ranks, dtype.itemsize)
        largest = max(largest, *ranks.values())
    return Fitted(parts, largest, nbytes)


@define(eq=False)
class _Fitting:
    """One adapter against one model, and what is wrong."""

    adapter: Adapter
    targets: Targets
    names: WeightMap = field(init=False)
    stored: dict[str, dict[str, TensorRef]] = field(init=False)
    """Field -> its tensors by name."""
    used: set[str] = field(factory=set, init=False)
    misfits: list[str] = field(factory=list, init=False)
    refused: dict[str, list[str]] = field(factory=dict, init=False)
    """Kind of matrix -> modules."""

    def __attrs_post_init__(self) -> None:
        deltas = self.adapter.deltas
        self.stored = {
            _DOWN: {tensor_name(module, _DOWN): pair.down for module, pair in deltas.items()},
            _UP: {tensor_name(module, _UP): pair.up for module, pair in deltas.items()},
        }
        wanted = [(part.path, _DOWN) for matrix in self.targets.matrices.values() for part in matrix.parts]
        self.names = choose(self.targets.maps, wanted, self.stored[_DOWN])

    def matrix(self, matrix: Matrix) -> dict[int, FittedPart]:
        """What the adapter adds to a matrix, by part; empty where it leaves it alone."""
        found = {}
        for number, part in enumerate(matrix.parts):
            modules = [name.removesuffix(f".{_DOWN}") for name in self.names.source(part.path, _DOWN).names()]
            known = [module for module in modules if module in self.adapter.deltas]
            self.used.update(known)
            why_not = self.targets.refusal(matrix)
            if known and why_not is not None:
                self.refused.setdefault(why_not, []).extend(known)
            elif known and (fitted := self._part(part, matrix.in_features, known)) is not None:
                found[number] = fitted
        return found

    def _part(self, part: Part, inputs: int, modules: list[str]) -> FittedPart | None:
        pair = self.adapter.deltas[modules[0]]
        wanted = {_DOWN: (pair.rank, inputs), _UP: (part.out_features, pair.rank)}
        try:
            reads = {name: self._read(part, name) for name in wanted}
        except (CheckpointError, PlanError) as error:
            self.misfits.append(f"{modules[0]} ({error.message})")
            return None
        if any(reads[name].shape != shape for name, shape in wanted.items()):
            self.misfits.append(f"{modules[0]} is {_sizes(pair)}, the model's is {inputs} -> {part.out_features}")
            return None
        return FittedPart(reads[_DOWN], reads[_UP], pair.scale)

    def _read(self, part: Part, name: str) -> Read:
        return self.names.source(part.path, name).plan(_DECLARED[name], {}, self.stored[name])

    def raise_any(self) -> None:
        """Tell everything that is wrong."""
        lines = list(self._faults())
        if not lines:
            return
        base = self.adapter.base
        made_for = f"it says it was made for {base}; " if base else ""
        raise AdapterError(
            f"the adapter {self.adapter.path} does not fit {self.targets.model}:\n  " + "\n  ".join(lines),
            hint=f"{made_for}load it beside the model it was trained on, or train it on this one",
        )

    def _faults(self) -> Iterator[str]:
        unknown = [module for module in self.adapter.deltas if module not in self.used]
        if unknown:
            yield f"{len(unknown)} modules that the model does not have: {_few(unknown)}"
        if self.misfits:
            yield f"{len(self.misfits)} modules of another shape: {_few(self.misfits)}"
        for why, modules in self.refused.items():
            yield f"{len(modules)} modules that cannot be adapted here ({why}): {_few(modules)}"
        if not self.adapter.deltas:
            yield "it changes nothing"


def _sizes(pair: LowRank) -> str:
    return f"{pair.down.shape[-1]} -> {pair.up.shape[0]}"


def _few(names: Sequence[str]) -> str:
    shown = ", ".join(names[:MAX_NAMED])
    return shown if len(names) <= MAX_NAMED else f"{shown} and {len(names) - MAX_NAMED} more"
