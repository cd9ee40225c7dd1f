# SPDX-License-Identifier: Apache-2.0
"""Checkpoints with random weights, made from nothing but a model's own declarations.

A model built over a blueprint names every weight it wants; drawn at random and written under the names that its weight
map gives them, they are a checkpoint. No other implementation of the model is needed, nor one of its files.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from attrs import define, field
from safetensors.torch import save_file
from torch import Tensor

from tramontane.build import Blueprint, Builder
from tramontane.checkpoint import MemoryTensor
from tramontane.config import read_config
from tramontane.load.design import weight_maps
from tramontane.ops import Runtime
from tramontane.plugins import Plugins, installed
from tramontane.tensors import AXES, Axis, TensorDecl
from tramontane.weightmap import Source, WeightMap, sources, tensor_name


@define
class Drawn:
    """Values of declared weights, and the logical axes of their dimensions."""

    tensors: dict[str, MemoryTensor] = field(factory=dict)
    axes: dict[str, tuple[str, ...]] = field(factory=dict)

    def enter(self, name: str, values: Tensor, axes: tuple[str, ...]) -> None:
        """Add one."""
        self.tensors[name], self.axes[name] = MemoryTensor.of(name, values), axes


def write_random(directory: Path, config: Mapping[str, Any], *, seed: int = 0, plugins: Plugins | None = None) -> Path:
    """Write ``config.json`` and ``model.safetensors`` in float32; returns the directory.

    Args:
        directory: Made if it is missing.
        config: Content of ``config.json``; its first architecture decides the model.
        seed: Other weights for another seed.
        plugins: Where the architecture is looked up.
    """
    spec = (plugins or installed()).catalogs.architectures.get(config["architectures"][0])
    blueprint = Blueprint(Runtime(torch.device("cpu")), torch.float32, torch.float32, max_positions=16)
    spec.load("model")(read_config(spec.load("config"), config), Builder(blueprint))
    names = weight_maps(spec, config)[0]
    tensors = draw(blueprint, torch.Generator().manual_seed(seed))
    directory.mkdir(parents=True, exist_ok=True)
    save_file(stored(tensors, names), directory / "model.safetensors", metadata={"format": "pt"})
    (directory / "config.json").write_text(json.dumps(config, indent=2), encoding="utf-8")
    return directory


def draw(blueprint: Blueprint, generator: torch.Generator) -> Drawn:
    """Random values for every weight of a blueprint, by the model's name of the tensor."""
    drawn = Drawn()
    for matrix in blueprint.matrices.values():
        stack = () if matrix.experts is None else (matrix.experts,)
        for part in matrix.parts:
            shape = (*stack, part.out_features, matrix.in_features)
            values = torch.randn(shape, generator=generator) * matrix.in_features**-0.5
            drawn.enter(tensor_name(part.path, "weight"), values, AXES[-len(shape) :])
    for param in blueprint.params.values():
        for source in param.sources:
            # Norm weights lie around what makes them one, everything else around zero.
            middle = 1.0 - param.offset if source.field == "weight" and len(source.shape) == 1 else 0.0
            values = middle + 0.2 * torch.randn(source.shape, generator=generator)
            axes = ("out",)[: len(source.shape)] if len(source.shape) < 2 else AXES[: len(source.shape)]
            drawn.enter(tensor_name(source.path, source.field), values, axes)
    return drawn


def stored(drawn: Drawn, names: WeightMap) -> dict[str, Tensor]:
    """The tensors as a checkpoint holds them: names, fusions and stacks of the map undone."""
    back = names.inverse()
    found = {}
    for name in names.stored_names(drawn.tensors):
        source = back.source(name, "")
        decl = TensorDecl(name, {axis: Axis(dim) for dim, axis in enumerate(_axes(source, drawn)) if axis})
        found[name] = source.plan(decl, {}, drawn.tensors).run().contiguous().clone()
    return found


def _axes(source: Source, drawn: Drawn) -> tuple[str, ...]:
    """Logical axes of what a source makes, in the order of its dimensions; empty for a dimension of one element."""
    match source:
        case sources.Leaf(name):
            return drawn.axes[name]
        case sources.Stack(axis, children):
            return (axis, *_axes(children[0], drawn))
        case sources.Concat(_, segments):
            return _axes(segments[0].source, drawn)
        case sources.Pick(child, axis):
            return tuple(kept for kept in _axes(child, drawn) if kept != axis)
        case sources.Transpose(child):
            return tuple({"out": "in", "in": "out"}.get(axis, axis) for axis in _axes(child, drawn))
        case sources.Unsqueeze(child, dim):
            below = _axes(child, drawn)
            return (*below[:dim], "", *below[dim:])
        case sources.Squeeze(child, dim):
            below = _axes(child, drawn)
            return below[:dim] + below[dim + 1 :]
        case sources.Select(child) | sources.Permute(child) | sources.Convert(child):
            return _axes(child, drawn)
    raise TypeError(f"a source of an unknown kind: {type(source).__qualname__}")
