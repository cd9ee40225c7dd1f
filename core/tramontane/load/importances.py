# SPDX-License-Identifier: Apache-2.0
"""Importances between files, which speak a format's names, and a model, which has its own.

A vector of importances lies along the inputs of a matrix as one of its fields does, so the architecture's dialect for
the format maps it like one: fusions, stacks of experts and row orders need nothing of their own.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Protocol

from torch import Tensor

from tramontane.build.blueprint import Blueprint
from tramontane.checkpoint import MemoryTensor
from tramontane.config import complete_config
from tramontane.dialects import dialects_of
from tramontane.errors import CheckpointError, ConfigError
from tramontane.plugins import Plugins
from tramontane.quantization.importance import (
    ImportanceFile,
    Importances,
    Statistics,
    Sums,
    importances_of,
    shaped,
)
from tramontane.records import ArchitectureSpec, ImportanceSpec, resolve
from tramontane.tensors import Axis, TensorDecl
from tramontane.weightmap import Source, WeightMap, tensor_name
from tramontane.weightmap.sources import Pick


class Described(Protocol):
    """A model, on paper or loaded."""

    architecture: ArchitectureSpec
    config: Any
    blueprint: Blueprint


_INPUTS = TensorDecl("importances", {"in": Axis(0)})
_STACK = TensorDecl("importances", {"expert": Axis(0), "in": Axis(1)})


def read_importances(path: Path, made: Described, config: Mapping[str, Any], plugins: Plugins) -> Importances:
    """The importances in a file, by the model's names.

    Raises:
        ConfigError: There is no such file, or no plugin reads it.
        CheckpointError: It is damaged, or belongs to another model.
    """
    spec = _reader(path, plugins)
    file: ImportanceFile = resolve(spec.read, spec)(path)
    found: dict[str, Sums] = {}
    for names in _maps(made.architecture, spec.form, complete_config(made.config, config)):
        here = _by_module(file, names, made.blueprint)
        found = here if len(here) > len(found) else found
    if not found:
        known = ", ".join(list(file.entries)[:3])
        raise CheckpointError(
            f"{path} holds nothing for the matrices of this model (it has {known} ...)",
            hint="it was collected from another architecture",
        )
    return importances_of(found)


def write_importances(
    path: Path,
    statistics: Statistics,
    made: Described,
    config: Mapping[str, Any],
    plugins: Plugins,
    *,
    chunks: int,
    chunk_tokens: int,
    text: str,
) -> None:
    """Write what was collected from so many chunks of a text, in the format that the path's ending names.

    Raises:
        ConfigError: No plugin writes such files.
        CheckpointError: The architecture has no words for the format, or the file cannot be written.
    """
    specs = [spec for spec in plugins.catalogs.importances if path.name.endswith(spec.extensions)]
    if not specs:
        endings = ", ".join(one for spec in plugins.catalogs.importances for one in spec.extensions) or "none"
        raise ConfigError(f"nothing installed writes importances to {path}", hint=f"endings that are known: {endings}")
    names = next(_maps(made.architecture, specs[0].form, complete_config(made.config, config)), None)
    if names is None:
        raise CheckpointError(f"architecture {made.architecture.name!r} has no words for {specs[0].form}")
    entries = dict(_by_tensor(statistics, names))
    file = ImportanceFile(entries=entries, chunks=chunks, chunk_tokens=chunk_tokens, texts=(text,))
    resolve(specs[0].write, specs[0])(path, file)


def _reader(path: Path, plugins: Plugins) -> ImportanceSpec:
    if not path.is_file():
        raise ConfigError(f"there is no file {path} with importances")
    specs = list(plugins.catalogs.importances)
    for spec in specs:
        if resolve(spec.detect, spec)(path):
            return spec
    known = ", ".join(spec.name for spec in specs) or "none"
    raise ConfigError(f"nothing installed reads {path} as importances", hint=f"formats: {known}")


def _maps(architecture: ArchitectureSpec, form: str, config: Mapping[str, Any]) -> Iterator[WeightMap]:
    if not form:
        yield WeightMap()
        return
    for dialect in dialects_of(architecture, form):
        yield dialect.weight_map(config)


def _by_module(file: ImportanceFile, names: WeightMap, blueprint: Blueprint) -> dict[str, Sums]:
    """What of a file belongs to the model's matrices."""
    found: dict[str, Sums] = {}
    for matrix in blueprint.matrices.values():
        stack, inputs = matrix.experts or 1, matrix.in_features
        for part in matrix.parts:
            source = names.source(part.path)
            have = {name: file.entries[name] for name in source.names() if name in file.entries}
            if len(have) < len(source.names()):
                continue
            each = 1 if all(sums.squares_XI.numel() == inputs for sums in have.values()) else stack
            sized = {name: shaped(name, sums, each, inputs) for name, sums in have.items()}
            flat = matrix.experts is None or (len(have) > 1 and each == 1)
            found[part.path] = _gathered(source, sized, flat=flat, decl=_INPUTS if matrix.experts is None else _STACK)
    return found


def _by_tensor(statistics: Statistics, names: WeightMap) -> Iterator[tuple[str, Sums]]:
    """What was collected, by the format's names; tensors of which not all parts were seen are left out."""
    back = names.inverse()
    for name in names.stored_names(tensor_name(path, "weight") for path in statistics):
        source = back.source(name, "")
        paths = {leaf: leaf.removesuffix(".weight") for leaf in source.names()}
        if all(path in statistics for path in paths.values()):
            parts = {leaf: statistics[path] for leaf, path in paths.items()}
            flat = all(len(sums.counts_X) == 1 for sums in parts.values())
            yield (
                name,
                _gathered(source, parts, flat=flat, decl=_INPUTS if flat or isinstance(source, Pick) else _STACK),
            )


def _gathered(source: Source, parts: Mapping[str, Sums], *, flat: bool, decl: TensorDecl) -> Sums:
    """Sums through a weight map. Counts go the same way, one per input."""

    def run(values: Mapping[str, Tensor]) -> Tensor:
        refs = {name: MemoryTensor.of(name, one[0] if flat else one) for name, one in values.items()}
        return source.plan(decl, {}, refs).run()

    squares = run({name: sums.squares_XI for name, sums in parts.items()})
    counts = run({name: sums.counts_X.unsqueeze(1).expand_as(sums.squares_XI) for name, sums in parts.items()})
    shape = (-1, squares.shape[-1])
    return Sums(squares.reshape(shape), counts.reshape(shape)[:, 0])
