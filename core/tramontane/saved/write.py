# SPDX-License-Identifier: Apache-2.0
"""Saving a planned model: every weight is read, brought to the scheme it is kept in, and written, one at a time.

Nothing is loaded for that: memory is one part of a matrix, whatever the model's size.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Protocol, TypeVar

from attrs import frozen
from torch import Tensor

from tramontane.build.blueprint import Blueprint
from tramontane.build.fill import bring
from tramontane.build.plan import ModelPlan, PartPlan
from tramontane.build.sources import TensorSource
from tramontane.checkpoint import CANONICAL, Checkpoint, Files
from tramontane.checkpoint.safetensors import ENCODINGS
from tramontane.errors import CheckpointError
from tramontane.hub.layout import INDEX
from tramontane.progress import Counter, Progress, silent
from tramontane.saved.description import KEY, Description, encoding_of
from tramontane.saved.files import Slot, TensorFile
from tramontane.schemes import Dense
from tramontane.weightmap import tensor_name

SHARD_BYTES = 5 * 10**9
"""Size from which a further file is begun."""
COPIED = (".json", ".jinja", ".model", ".txt", ".tiktoken")
"""Endings of the small files that are copied."""
LEFT_BEHIND = ("model.safetensors", INDEX, "config.json")
"""Files of the original that are written anew, or not at all; nor is what says how the original was quantized."""


class _Sized(Protocol):
    @property
    def nbytes(self) -> int: ...


Sized = TypeVar("Sized", bound=_Sized)


@frozen
class _Entry:
    """What is written in one go: a part of a matrix, or a plain tensor."""

    path: str
    slots: Mapping[str, Slot]
    part: PartPlan | None = None
    tensor: TensorSource | None = None

    @property
    def nbytes(self) -> int:
        return sum(slot.nbytes for slot in self.slots.values())

    def read(self) -> Mapping[str, Tensor]:
        """The tensors, by name."""
        if self.part is not None:
            return {tensor_name(self.path, name): tensor for name, tensor in bring(self.part).items()}
        if self.tensor is None:
            raise CheckpointError(f"{self.path} has no source")
        (name,) = self.slots
        return {name: self.tensor.read()}


def save_plan(
    plan: ModelPlan,
    blueprint: Blueprint,
    checkpoint: Checkpoint,
    directory: Path,
    *,
    config: Mapping[str, Any],
    progress: Progress | None = None,
    shard_bytes: int = SHARD_BYTES,
) -> tuple[Path, ...]:
    """Write a planned model with its configuration, tokenizer and templates.

    Args:
        plan: What is written, and in which schemes.
        blueprint: The model's declarations, for names.
        checkpoint: Where small files are copied from.
        directory: Made if it is missing; must be empty.
        config: Content of ``config.json``.
        progress: Told how far it is.
        shard_bytes: Size of one file.

    Returns:
        The weight files.

    Raises:
        CheckpointError: The directory is not empty, or a tensor cannot be read.
        PlanError: A weight is in a scheme that this form does not hold.
    """
    directory.mkdir(parents=True, exist_ok=True)
    if any(directory.iterdir()):
        raise CheckpointError(f"{directory} is not empty", hint="give a new folder; nothing was written")
    shards = shards_of(_entries(plan, blueprint), shard_bytes)
    metadata = {"format": "pt", "dialect": CANONICAL, **_described(plan)}
    count = len(shards)
    placed: dict[str, str] = {}
    counter = Counter(progress or silent, "save", sum(entry.nbytes for shard in shards for entry in shard))
    files = []
    for number, shard in enumerate(shards, 1):
        name = "model.safetensors" if count == 1 else f"model-{number:05}-of-{count:05}.safetensors"
        slots = {tensor: slot for entry in shard for tensor, slot in entry.slots.items()}
        placed |= dict.fromkeys(slots, name)
        said = {**metadata, ENCODINGS: json.dumps(_encodings(shard))}
        with TensorFile(directory / name, slots, said) as file:
            for entry in shard:
                for tensor, value in entry.read().items():
                    file.put(tensor, value)
                counter.add(entry.nbytes, entry.path)
        files.append(directory / name)
    if count > 1:
        index = {"metadata": {"total_size": sum(file.stat().st_size for file in files)}, "weight_map": placed}
        (directory / INDEX).write_text(json.dumps(index, indent=2), encoding="utf-8")
    write_beside(checkpoint.files, directory, config)
    return tuple(files)


def _described(plan: ModelPlan) -> Mapping[str, str]:
    """The description of what is not plain floating point."""
    schemes = {p.path: p.scheme for w in plan.weights for p in w.parts if not isinstance(p.scheme, Dense)}
    return {KEY: Description({path: one for path, one in schemes.items() if not encoding_of(one)}).text()}


def _encodings(entries: Iterable[_Entry]) -> Mapping[str, str]:
    """What tensors hold that plugins' formats read."""
    parts = [(entry, encoding_of(entry.part.scheme)) for entry in entries if entry.part is not None]
    return {tensor: encoding for entry, encoding in parts if encoding for tensor in entry.slots}


def _entries(plan: ModelPlan, blueprint: Blueprint) -> Iterator[_Entry]:
    for weight in plan.weights:
        for part in weight.parts:
            stored = part.source.scheme
            scheme = stored if isinstance(part.scheme, Dense) and isinstance(stored, Dense) else part.scheme
            fields = scheme.fields(part.shape)
            slots = {tensor_name(part.path, name): Slot(one.dtype, one.shape) for name, one in fields.items()}
            yield _Entry(part.path, slots, part=part)
    for planned in plan.params:
        for wanted, source in zip(blueprint.params[planned.path].sources, planned.sources, strict=True):
            value = source.read()  # headers do not say what a value map makes of a type; these are small
            name = tensor_name(wanted.path, wanted.field)
            yield _Entry(name, {name: Slot(value.dtype, tuple(value.shape))}, tensor=source)


def shards_of(entries: Iterable[Sized], limit: int) -> list[list[Sized]]:
    """Entries in their order, in files of at most ``limit`` bytes, or of one entry. At least one file, which may be
    empty."""
    shards: list[list[Sized]] = [[]]
    size = 0
    for entry in entries:
        if shards[-1] and size + entry.nbytes > limit:
            shards.append([])
            size = 0
        shards[-1].append(entry)
        size += entry.nbytes
    return shards


def write_beside(files: Files, directory: Path, config: Mapping[str, Any]) -> None:
    """Configuration, tokenizer, templates: everything beside the weights that a checkpoint gives as text."""
    for name in files.entries:
        wanted = name.endswith(COPIED) and name not in LEFT_BEHIND and "quant" not in name
        content = files.bytes(name) if wanted else None
        if content is not None:
            target = directory / name
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(content)
    (directory / "config.json").write_text(json.dumps(dict(config), indent=2), encoding="utf-8")
