# SPDX-License-Identifier: Apache-2.0
"""The plan of a model: for every weight, where it is read from, how it is stored there and how it will be kept.

Made before anything is allocated. Plugins may return a changed plan (``transform_plan``): another scheme for a part,
another device. The checkpoint's faults are found here, all at once: what is missing, what is left over, what has the
wrong shape.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from math import prod

import torch
from attrs import field, frozen
from torch import Tensor

from tramontane.build.blueprint import Blueprint
from tramontane.build.sources import PartSource, Sources, TensorSource
from tramontane.checkpoint import Checkpoint
from tramontane.errors import CheckpointError
from tramontane.schemes import Dense, Fields, Scheme
from tramontane.weights import Matrix, Param, Source

MAX_NAMED = 40
"""Tensors named per fault; a checkpoint of another model would otherwise fill the screen."""


@frozen(kw_only=True)
class PartPlan:
    """One part of a matrix: how it is stored in the checkpoint, and how it is kept."""

    path: str
    shape: tuple[int, ...]
    source: PartSource = field(repr=False)
    scheme: Scheme
    """How it is kept. Differs from ``source.scheme`` where it is quantized, or converted, while loading."""
    pack: Callable[[Tensor], Fields] | None = field(default=None, eq=False, repr=False)
    """How a floating-point weight becomes that; ``None`` is the scheme's plain rule."""

    @property
    def nbytes(self) -> int:
        """Bytes kept."""
        return self.scheme.nbytes(self.shape)


@frozen(kw_only=True)
class WeightPlan:
    """One matrix of the model."""

    path: str
    shape: tuple[int, ...]
    uses: frozenset[str]
    parts: tuple[PartPlan, ...]

    @property
    def nbytes(self) -> int:
        """Bytes kept."""
        return sum(part.nbytes for part in self.parts)

    @property
    def is_head(self) -> bool:
        """The output head: its rows are words, not features."""
        return self.path.split(".")[-1] in ("lm_head", "embed_out", "output")


@frozen(kw_only=True)
class ParamPlan:
    """One plain tensor of the model."""

    path: str
    shape: tuple[int, ...]
    dtype: torch.dtype
    sources: tuple[TensorSource, ...] = field(repr=False)
    zero: bool = False
    """Another worker adds it."""

    @property
    def nbytes(self) -> int:
        """Bytes kept."""
        return prod(self.shape) * self.dtype.itemsize


@frozen(kw_only=True)
class ModelPlan:
    """Everything that is loaded. Weights are in the order in which the model declares them."""

    architecture: str
    dtype: torch.dtype
    weights: tuple[WeightPlan, ...]
    params: tuple[ParamPlan, ...]

    @property
    def nbytes(self) -> int:
        """Bytes of all weights as kept."""
        return sum(weight.nbytes for weight in self.weights) + sum(param.nbytes for param in self.params)

    @property
    def parameters(self) -> int:
        """How many numbers the model has learned; a tied head counts once."""
        return sum(prod(w.shape) for w in self.weights) + sum(prod(p.shape) for p in self.params)

    def weight(self, path: str) -> WeightPlan:
        """The plan of one matrix."""
        return next(weight for weight in self.weights if weight.path == path)


def make_plan(architecture: str, blueprint: Blueprint, sources: Sources, checkpoint: Checkpoint) -> ModelPlan:
    """Find every declared weight in the checkpoint.

    Raises:
        CheckpointError: Tensors are missing, unexpected or mis-shaped; all are named.
    """
    faults = _Faults()
    weights = tuple(_plan_matrix(matrix, sources, blueprint.dtype, faults) for matrix in blueprint.matrices.values())
    params = tuple(_plan_param(param, sources, faults) for param in blueprint.params.values())
    faults.unexpected = sources.unused()
    faults.raise_any(checkpoint)
    return ModelPlan(architecture=architecture, dtype=blueprint.dtype, weights=weights, params=params)


class _Faults:
    """What is wrong with a checkpoint, collected over all weights."""

    def __init__(self) -> None:
        self.missing: list[str] = []
        self.misshaped: list[str] = []
        self.unexpected: list[str] = []

    def compare(self, name: str, found: tuple[int, ...], wanted: tuple[int, ...]) -> None:
        """Note a tensor whose shape is not the declared one."""
        if found != wanted:
            self.misshaped.append(f"{name} is {list(found)} instead of {list(wanted)}")

    def raise_any(self, checkpoint: Checkpoint) -> None:
        kinds: Mapping[str, list[str]] = {
            "missing": self.missing,
            "of the wrong shape": self.misshaped,
            "unexpected": self.unexpected,
        }
        lines = [f"{len(names)} {kind}: {_few(names)}" for kind, names in kinds.items() if names]
        if lines:
            raise CheckpointError(
                f"{checkpoint.path} does not fit its configuration; tensors " + "\n  tensors ".join(lines),
                hint="the configuration may belong to another model, or the download may be incomplete",
            )


def _few(names: list[str]) -> str:
    shown = ", ".join(names[:MAX_NAMED])
    return shown if len(names) <= MAX_NAMED else f"{shown} and {len(names) - MAX_NAMED} more"


def _plan_matrix(matrix: Matrix, sources: Sources, dtype: torch.dtype, faults: _Faults) -> WeightPlan:
    parts = []
    for part in matrix.parts:
        base = (part.out_features, matrix.in_features)
        shape = base if matrix.experts is None else (matrix.experts, *base)
        source = sources.part(part.path, matrix.stored_shape(part), matrix.ranges(part))
        if source is None:
            faults.missing += sources.wanted(part.path)
            continue
        if isinstance(source.scheme, Dense):
            faults.compare(source.name, source.reads["weight"].shape, shape)
        else:
            faults.misshaped += source.misfits
        parts.append(
            PartPlan(path=part.path, shape=shape, source=source, scheme=kept_scheme(source, matrix.uses, dtype))
        )
    return WeightPlan(path=matrix.path, shape=matrix.shape, uses=frozenset(matrix.uses), parts=tuple(parts))


def kept_scheme(source: PartSource, uses: Collection[str], dtype: torch.dtype) -> Scheme:
    """How a part is kept where nothing else is asked for: as it is stored, numbers in the model's own type."""
    return Dense(dtype) if isinstance(source.scheme, Dense) or "absorbed" in uses else source.scheme


def _plan_param(param: Param, sources: Sources, faults: _Faults) -> ParamPlan:
    found = [source for wanted in param.sources if (source := _find(wanted, sources, faults)) is not None]
    return ParamPlan(path=param.path, shape=param.shape, dtype=param.dtype, sources=tuple(found), zero=param.zero)


def _find(wanted: Source, sources: Sources, faults: _Faults) -> TensorSource | None:
    source = sources.tensor(wanted.path, wanted.field, len(wanted.shape), wanted.ranges)
    if source is None:
        faults.missing += sources.wanted(wanted.path, wanted.field)
    else:
        faults.compare(source.name, source.shape, wanted.shape)
    return source
