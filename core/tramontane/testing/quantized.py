# SPDX-License-Identifier: Apache-2.0
"""Quantized checkpoints beside the floats they stand for: what tests of a stored format compare.

The format under test is asked for slices of single matrices, and a tiny model stored in it must compute what the same
model computes with the dequantized weights. Knows no format; packing is the test's business.
"""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import attrs
import torch
from attrs import field, frozen
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from tramontane.build.formats import QuantFormat
from tramontane.build.sources import PartSource, Sources
from tramontane.checkpoint import Checkpoint, Files, MemoryTensor
from tramontane.errors import PlanError
from tramontane.plugins import Plugins
from tramontane.saved.description import KEY
from tramontane.schemes import Act
from tramontane.tensors import AXES, AxisRanges, Ranges, indices
from tramontane.testing.checkpoints import write_random
from tramontane.testing.harness import Harness
from tramontane.testing.invariants import TOLERANCE, assert_close
from tramontane.weightmap import WeightMap

Pack = Callable[[str, Tensor], "tuple[Mapping[str, Tensor], Tensor] | None"]
"""``pack(module, weight [O, I])``: the stored fields by name, and the weight that they stand for. ``None`` leaves the
module as it is."""

PROMPT = (3, 17, 42, 8, 150, 99, 23, 5, 61, 180, 7, 12)


@frozen
class Stored:
    """Tensors of a checkpoint in memory, read through one format."""

    format: QuantFormat
    config: Mapping[str, Any]
    tensors: Mapping[str, Tensor] = field(repr=False)
    names: WeightMap = field(factory=WeightMap)
    files: Mapping[str, Any] = field(factory=dict)
    """Further JSON files beside the configuration."""

    @property
    def checkpoint(self) -> Checkpoint:
        """As a loader would open it."""
        return Checkpoint(
            path=Path("in-memory"),
            config=self.config,
            tensors={name: MemoryTensor.of(name, tensor) for name, tensor in self.tensors.items()},
            files=Files({name: _constant(json.dumps(content).encode()) for name, content in self.files.items()}),
        )

    @property
    def sources(self) -> Sources:
        """Its weights by module.

        Raises:
            AssertionError: The format does not find itself in the checkpoint.
        """
        checkpoint = self.checkpoint
        bound = self.format.detect(checkpoint)
        if bound is None:
            raise AssertionError(f"{self.format} does not detect {dict(self.config)}")
        return Sources(checkpoint, self.names, [bound])

    def part(self, path: str, shape: tuple[int, ...], ranges: AxisRanges | None = None) -> PartSource:
        """One matrix, planned.

        Raises:
            AssertionError: The format does not claim it, or stored shapes do not fit.
        """
        found = self.sources.part(path, shape, ranges or {})
        if found is None:
            raise AssertionError(f"{path} is not stored in the format")
        if found.misfits:
            raise AssertionError("; ".join(found.misfits))
        return found

    def weight(self, path: str, shape: tuple[int, ...], ranges: AxisRanges | None = None) -> Tensor:
        """One matrix, or a slice of it, dequantized: float32."""
        part = self.part(path, shape, ranges)
        return part.scheme.dequantize(part.read(), part.shape)


def _constant(content: bytes) -> Callable[[], bytes]:
    return lambda: content


def check_slice(stored: Stored, path: str, shape: tuple[int, ...], axis: str, ranges: Ranges) -> bool:
    """Cutting and dequantizing give the same in either order, bit for bit; or the cut is refused with its numbers.

    Returns:
        Whether it could be cut.

    Raises:
        AssertionError: Neither holds.
    """
    whole = stored.weight(path, shape)
    try:
        part = stored.weight(path, shape, {axis: ranges})
    except PlanError as refusal:
        if not re.search(r"\d", refusal.message):
            raise AssertionError(f"a refusal without numbers: {refusal.message}") from refusal
        return False
    expected = whole.index_select(AXES[-len(shape) :].index(axis), indices(ranges))
    if not torch.equal(part, expected):
        raise AssertionError(f"{path}: the slice {ranges} of axis {axis!r} is not the slice of the whole")
    return True


@frozen
class Twins:
    """One model twice: stored in a format, and in float32 with the weights that the format stands for."""

    quantized: Path
    plain: Path
    packed: tuple[str, ...]
    """Modules that were packed."""

    def check_logits(
        self, *, tolerance: float = TOLERANCE, plugins: Plugins | None = None, prompt: Sequence[int] = PROMPT
    ) -> Harness:
        """Load both and compare the logits of a prompt, in float32 on stock torch, activations as they are; returns the
        quantized one.

        Raises:
            AssertionError: They differ.
        """
        options: dict[str, Any] = {"backend": "torch", "dtype": "float32", "plugins": plugins}
        ours = Harness.load(self.quantized, **options, activations="exact")
        theirs = Harness.load(self.plain, **options)
        assert_close(ours.logits(prompt), theirs.logits(prompt), tolerance, "logits against the dequantized weights")
        return ours


def write_twins(
    directory: Path,
    config: Mapping[str, Any],
    pack: Pack,
    *,
    settings: Mapping[str, Any],
    files: Mapping[str, Any] | None = None,
    seed: int = 0,
    plugins: Plugins | None = None,
) -> Twins:
    """Write a random model of a configuration in both forms.

    Args:
        directory: Where both are put.
        config: Content of ``config.json`` without quantization.
        pack: See :data:`Pack`; asked for every matrix that is stored under ``<module>.weight``.
        settings: What the quantized checkpoint's ``config.json`` says beside that.
        files: Further JSON files of the quantized checkpoint.
        seed: Other weights for another seed.
        plugins: Where the architecture is looked up.
    """
    plain = write_random(directory / "plain", config, seed=seed, plugins=plugins)
    weights = load_file(plain / "model.safetensors")
    stored: dict[str, Tensor] = {}
    packed = []
    for name, weight in sorted(weights.items()):
        module, _, last = name.rpartition(".")
        made = pack(module, weight) if last == "weight" and weight.dim() == 2 else None
        if made is None:
            stored[name] = weight
            continue
        fields, weights[name] = made
        packed.append(module)
        own = torch.contiguous_format  # files hold no tensor twice
        stored |= {f"{module}.{one}": tensor.clone(memory_format=own) for one, tensor in fields.items()}
    save_file({name: weight.float().contiguous() for name, weight in weights.items()}, plain / "model.safetensors")
    quantized = directory / "quantized"
    quantized.mkdir()
    save_file(stored, quantized / "model.safetensors", metadata={"format": "pt"})
    for name, content in {"config.json": {**config, **settings}, **(files or {})}.items():
        (quantized / name).write_text(json.dumps(content), encoding="utf-8")
    return Twins(quantized, plain, tuple(packed))


def with_activation_rule(saved: Path, act: Act) -> Path:
    """A copy, beside it, of a saved model of one file whose matrices all have a rule for activations."""
    copy = saved.with_name(f"{saved.name}-ruled")
    shutil.copytree(saved, copy)
    file = copy / "model.safetensors"
    with safe_open(file, "pt") as opened:
        metadata = dict(opened.metadata())
    described = json.loads(metadata[KEY])
    for scheme in described["schemes"]:
        scheme["act"] = attrs.asdict(act)
    save_file(load_file(file), file, {**metadata, KEY: json.dumps(described)})
    return copy
