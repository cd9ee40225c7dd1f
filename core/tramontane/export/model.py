# SPDX-License-Identifier: Apache-2.0
"""What writers get: a model's tensors, lazy and in the schemes they are kept in, and the file's made of them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from attrs import define, field, frozen
from torch import Tensor

from tramontane.checkpoint import Files, MemoryTensor, TensorRef
from tramontane.config import complete_config
from tramontane.errors import PlanError
from tramontane.records import ArchitectureSpec, WriterSpec, resolve
from tramontane.schemes import Dense, Scheme
from tramontane.tensors import AXES, Axis, TensorDecl
from tramontane.weightmap import Source, WeightMap, sources, tensor_name
from tramontane.weights import Matrix, Param, Stored

if TYPE_CHECKING:
    from tramontane.build import Blueprint
    from tramontane.load import LoadedModel
    from tramontane.plugins import Plugins


@frozen(kw_only=True)
class WriteOptions:
    """How a model is written.

    Attributes:
        quant: Type to write matrices in, by the format's names; ``None`` keeps what the model has.
        changed: Write even a model that the format cannot describe: what it has no words for is lost, with a warning.
        version: Version of the format, such as ``1.2``; ``None`` is the newest that the writer knows.
    """

    quant: str | None = None
    changed: bool = False
    version: str | None = None

    def check_version(self, form: str, *known: str) -> str:
        """The version to write, of those that a writer knows, the newest first.

        Raises:
            PlanError: Another one is asked for.
        """
        if self.version is not None and self.version not in known:
            raise PlanError(f"{form} is written in version {' or '.join(known)}, not {self.version}")
        return self.version or known[0]


@define(kw_only=True, eq=False)
class _Kept(TensorRef):
    """One canonical field of one part of a matrix, as its storage gives it back."""

    stored: Stored = field(repr=False)
    part: int

    def read(self, index: tuple[slice, ...] | None = None, out: Tensor | None = None) -> Tensor:
        """See :meth:`TensorRef.read`."""
        whole = self.stored.unpack(self.part)[self.name].cpu()
        wanted = whole if index is None else whole[index]
        return wanted if out is None else out.copy_(wanted)


@define(kw_only=True, eq=False)
class _Unpacked(TensorRef):
    """One part of a matrix as float32."""

    scheme: Scheme
    fields: Mapping[str, TensorRef] = field(repr=False)

    def read(self, index: tuple[slice, ...] | None = None, out: Tensor | None = None) -> Tensor:
        """See :meth:`TensorRef.read`."""
        whole = self.scheme.dequantize({name: ref.read() for name, ref in self.fields.items()}, self.shape)
        wanted = whole if index is None else whole[index]
        return wanted if out is None else out.copy_(wanted)


@frozen
class ModelTensor:
    """One tensor of the model: a part of a matrix in the scheme it is kept in, or a plain tensor."""

    name: str
    shape: tuple[int, ...]
    """Logical shape."""
    axes: tuple[str, ...]
    """Logical axes of its dimensions."""
    fields: Mapping[str, TensorRef] = field(repr=False)
    scheme: Scheme | None = None
    """``None`` for plain tensors, which are never quantized."""
    uses: frozenset[str] = frozenset()
    """See :attr:`tramontane.weights.Matrix.uses`."""

    def dense(self) -> TensorRef:
        """It as floating point: as kept where it is dense, else float32."""
        if self.scheme is None or isinstance(self.scheme, Dense):
            return self.fields["weight"]
        return _Unpacked(name=self.name, dtype=torch.float32, shape=self.shape, scheme=self.scheme, fields=self.fields)


@frozen
class Outgoing:
    """One tensor of the file, made of tensors of the model."""

    name: str
    source: Source = field(repr=False)
    parts: Mapping[str, ModelTensor] = field(repr=False)

    @property
    def axes(self) -> tuple[str, ...]:
        """Logical axes of its dimensions, in order."""
        return _axes(self.source, self.parts)

    @property
    def scheme(self) -> Scheme | None:
        """The scheme that all its parts are kept in; ``None`` where they differ, or are plain."""
        first, *others = {part.scheme for part in self.parts.values()}
        return None if others else first

    @property
    def is_matrix(self) -> bool:
        """Whether it may be quantized."""
        return all(part.scheme is not None for part in self.parts.values())

    @property
    def uses(self) -> frozenset[str]:
        """What its parts are used for."""
        return frozenset[str]().union(*(part.uses for part in self.parts.values()))

    def dense(self) -> Tensor:
        """Its values as floating point, of its logical shape."""
        return self._read(self._decl(), {name: part.dense() for name, part in self.parts.items()})

    @property
    def shape(self) -> tuple[int, ...]:
        """Its logical shape."""
        refs = {name: part.dense() for name, part in self.parts.items()}
        return self.source.plan(self._decl(), {}, refs).shape

    def packed(self) -> dict[str, Tensor]:
        """The canonical fields of its common scheme, unchanged.

        Raises:
            PlanError: There is no common scheme, or the format stores in another order what is packed together.
        """
        scheme = self.scheme
        if scheme is None:
            raise PlanError(f"{self.name} is made of parts in different schemes")
        decls = {name: one.decl for name, one in scheme.fields(self.shape).items()}
        return {
            name: self._read(decl, {leaf: part.fields[name] for leaf, part in self.parts.items()})
            for name, decl in decls.items()
        }

    def _decl(self) -> TensorDecl:
        return TensorDecl(self.name, {axis: Axis(dim) for dim, axis in enumerate(self.axes)})

    def _read(self, decl: TensorDecl, refs: Mapping[str, TensorRef]) -> Tensor:
        return self.source.plan(decl, {}, refs).run()


@frozen(kw_only=True)
class Export:
    """A whole model, as writers get it."""

    architecture: ArchitectureSpec
    config: Mapping[str, Any]
    """In Hugging Face's spelling; what the files did not state has the value that the architecture takes then."""
    parsed: Any = field(repr=False)
    """The architecture's own reading of it."""
    blueprint: Blueprint = field(repr=False)
    plugins: Plugins = field(repr=False)
    """Who would read what is written."""
    tensors: Mapping[str, ModelTensor] = field(repr=False)
    """By the model's own names."""
    files: Files = field(repr=False)
    metadata: Mapping[str, Any] = field(repr=False)
    """What the files said that the model was loaded from."""
    dialect: str
    """Of those files."""

    def outgoing(self, names: WeightMap) -> Iterator[Outgoing]:
        """Every tensor of a file whose names are related to the model's by ``names``."""
        back = names.inverse()
        for name in names.stored_names(self.tensors):
            source = back.source(name, "")
            yield Outgoing(name, source, {leaf: self.tensors[leaf] for leaf in source.names()})


def export(loaded: LoadedModel, plugins: Plugins) -> Export:
    """A loaded model, ready to be written. Nothing is read until a tensor is asked for."""
    tensors = {}
    for matrix in loaded.blueprint.matrices.values():
        tensors.update({one.name: one for one in _parts(matrix)})
    for param in loaded.blueprint.params.values():
        tensors.update({one.name: one for one in _plain(param)})
    return Export(
        architecture=loaded.architecture,
        config=complete_config(loaded.config, loaded.checkpoint.config),
        parsed=loaded.config,
        blueprint=loaded.blueprint,
        plugins=plugins,
        tensors=tensors,
        files=loaded.checkpoint.files,
        metadata=loaded.checkpoint.metadata,
        dialect=loaded.checkpoint.dialect,
    )


def write_model(
    loaded: LoadedModel, path: Path, plugins: Plugins, *, form: str, options: WriteOptions
) -> tuple[Path, ...]:
    """Write a loaded model to a file in the format ``form``. Returns the files with weights.

    Raises:
        UnknownNameError: No installed plugin writes the format.
        CheckpointError: The format has no words for this model, or the file cannot be written.
    """
    spec: WriterSpec = plugins.catalogs.writers.get(form)
    return tuple(resolve(spec.write, spec)(export(loaded, plugins), path, options))


def _parts(matrix: Matrix) -> Iterator[ModelTensor]:
    stack = () if matrix.experts is None else (matrix.experts,)
    for index, (part, scheme) in enumerate(zip(matrix.parts, matrix.schemes, strict=True)):
        shape = (*stack, part.out_features, matrix.in_features)
        fields = {
            name: _Kept(name=name, dtype=one.dtype, shape=one.shape, stored=matrix.storage(), part=index)
            for name, one in scheme.fields(shape).items()
        }
        name = tensor_name(part.path, "weight")
        yield ModelTensor(name, shape, AXES[-len(shape) :], fields, scheme, frozenset(matrix.uses))


def _plain(param: Param) -> Iterator[ModelTensor]:
    start = 0
    for source in param.sources:
        size = source.shape[-1] if source.shape else 1
        value = param.tensor if not source.shape else param.tensor.narrow(-1, start, size)
        values = value.cpu() - param.offset if param.offset else value.cpu()
        axes = ("expert", "out") if len(source.shape) == 2 else ("out",)[: len(source.shape)]
        name = tensor_name(source.path, source.field)
        yield ModelTensor(name, source.shape, axes, {"weight": MemoryTensor.of(name, values)})
        start += size


def _axes(source: Source, parts: Mapping[str, ModelTensor]) -> tuple[str, ...]:
    """Logical axes of what a source makes, in the order of its dimensions."""
    match source:
        case sources.Leaf(name):
            return parts[name].axes
        case sources.Stack(axis, children):
            return (axis, *_axes(children[0], parts))
        case sources.Concat(_, segments):
            return _axes(segments[0].source, parts)
        case sources.Pick(child, axis):
            return tuple(kept for kept in _axes(child, parts) if kept != axis)
        case sources.Transpose(child):
            return tuple({"out": "in", "in": "out"}.get(axis, axis) for axis in _axes(child, parts))
        case sources.Select(child) | sources.Permute(child) | sources.Convert(child):
            return _axes(child, parts)
    raise TypeError(f"a source of an unknown kind: {type(source).__qualname__}")
