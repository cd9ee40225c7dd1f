# SPDX-License-Identifier: Apache-2.0
"""Mixtures whose experts are stored one by one, or stacked in one of several ways: one model, in every way."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file, save_file

from tramontane.checkpoint import MemoryTensor
from tramontane.errors import CheckpointError
from tramontane.load.design import weight_maps
from tramontane.plugins import installed
from tramontane.records import ArchitectureSpec
from tramontane.tensors import AXES, Axis, TensorDecl
from tramontane.testing.checkpoints import write_random
from tramontane.testing.harness import Harness
from tramontane.testing.invariants import assert_close

STACKS = (".experts.gate_up_proj", ".switch_mlp.gate_proj.weight")
"""What stacks are called where they are stored: as transformers 5 holds them, and by MLX."""
LOST = (".experts.down_proj", ".switch_mlp.down_proj.weight")


def mixtures() -> list[Any]:
    """Architectures of which checkpoints come in several layouts: the record, a sample, the number of the layout."""
    found = [spec for spec in installed().catalogs.architectures if spec.weight_map and spec.samples]
    samples = {spec.name: (spec, next(iter(spec.load("samples")().values()))) for spec in found}
    return [
        pytest.param(spec, config, layout, id=f"{name}-{layout}")
        for name, (spec, config) in samples.items()
        for layout in range(1, len(weight_maps(spec, config)))
    ]


def declared(name: str, dims: int) -> TensorDecl:
    """Where the logical axes of a tensor with so many dimensions lie."""
    axes = AXES[-dims:] if dims > 1 else ("out",)
    return TensorDecl(name, {axis: Axis(dim) for dim, axis in enumerate(axes)})


def restore(path: Path, spec: ArchitectureSpec, config: dict[str, Any], layout: int) -> list[str]:
    """Write the checkpoint's tensors anew under the names of another layout; returns these."""
    maps = weight_maps(spec, config)
    usual, other = maps[0], maps[layout]
    file = path / "model.safetensors"
    stored = {name: MemoryTensor.of(name, values) for name, values in load_file(file).items()}
    tensors = {}
    for name in {back for one in stored for back in usual.model_names(one)}:
        dims = 3 if ".experts." in name else len(stored[usual.stored_names([name])[0]].shape)
        values = usual.source(name, "").plan(declared(name, dims), {}, stored).run()
        tensors[name] = MemoryTensor.of(name, values.contiguous())
    plans = other.export(tensors, lambda name: declared(name, len(tensors[name].shape)))
    save_file({name: plan.run().contiguous().clone() for name, plan in plans.items()}, file, metadata={"format": "pt"})
    return sorted(plans)


CASES = mixtures()


@pytest.mark.parametrize(("spec", "config", "layout"), CASES)
def test_all_layouts_are_one_model(spec: ArchitectureSpec, config: dict[str, Any], layout: int, tmp_path: Path) -> None:
    path = write_random(tmp_path / "model", config)
    prompt = list(range(3, 20))
    wanted = Harness.load(path, backend="torch", capture=False).logits(prompt)
    names = restore(path, spec, config, layout)
    assert any(name.endswith(STACKS) for name in names), names
    # Not bit for bit: stock torch may add up in another order where a matrix lies otherwise in memory.
    assert_close(Harness.load(path, backend="torch", capture=False).logits(prompt), wanted, 1e-5, "in another layout")


@pytest.mark.parametrize(
    ("spec", "config", "layout"),
    [*CASES[:2], *(pytest.param(*case.values, id=case.id, marks=pytest.mark.full) for case in CASES[2:])],
)
def test_what_is_missing_is_named_as_its_layout_does(
    spec: ArchitectureSpec, config: dict[str, Any], layout: int, tmp_path: Path
) -> None:
    path = write_random(tmp_path / "model", config)
    restore(path, spec, config, layout)
    file = path / "model.safetensors"
    tensors = load_file(file)
    lost = next(name for name in sorted(tensors) if name.endswith(LOST))
    del tensors[lost]
    save_file(tensors, file, metadata={"format": "pt"})
    with pytest.raises(CheckpointError, match=lost):
        Harness.load(path, backend="torch", capture=False)
