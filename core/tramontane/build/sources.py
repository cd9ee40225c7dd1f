# SPDX-License-Identifier: Apache-2.0
"""Where declared weights are in a checkpoint.

Joins the three things that know a part of the answer: the weight map (names, fusions, stacks), the formats (how numbers
are stored) and the shard (which slice is wanted). Keeps count of what was asked for, so that left-over tensors can be
named. Reads headers only; data moves when a source's ``read`` is called.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from attrs import define, evolve, field, frozen
from torch import Tensor

from tramontane.build.formats import Canonical, FormatPart, StoredFormat, StoredTensor
from tramontane.checkpoint import Checkpoint, MemoryTensor, TensorRef
from tramontane.errors import CheckpointError, PlanError
from tramontane.schemes import Fields, Scheme
from tramontane.tensors import AXES, Axis, AxisRanges, TensorDecl, compose, length, whole
from tramontane.weightmap import Leaf, Read, Source, WeightMap
from tramontane.weightmap.sources import Select

MAX_DESCRIPTION_BYTES = 2**20
"""Largest field that a format may read while a model is planned."""


@frozen
class PartSource:
    """A matrix of the checkpoint, or the wanted slice of it, in one scheme."""

    name: str
    """For messages."""
    shape: tuple[int, ...]
    scheme: Scheme
    """How it is stored. A slice may have another scheme than the whole: act-order groups are cut, say."""
    canonical: Canonical = field(repr=False)
    reads: Mapping[str, Read] = field(repr=False)
    misfits: tuple[str, ...] = ()
    """Stored tensors that have another shape than the logical one asks for."""
    whole: Whole | None = field(default=None, repr=False)
    """What is read where the format cannot be cut and the slice is taken afterwards."""

    @property
    def extra_nbytes(self) -> int:
        """Bytes held for a moment beyond the slice itself, where the whole has to be read."""
        return 0 if self.whole is None else self.whole.scheme.nbytes(self.whole.shape)

    def read(self) -> Fields:
        """Canonical fields; may be views of the file.

        Raises:
            CheckpointError: What was read does not fit the scheme.
        """
        stored = {name: read.run() for name, read in self.reads.items()}
        if self.whole is None:
            fields = self._brought(stored, self.shape)
        else:
            fields = self.whole.cut(self._brought(stored, self.whole.shape), what=self.name)
        self.scheme.check(fields, self.shape, what=self.name)
        return fields

    def _brought(self, stored: Mapping[str, Tensor], shape: tuple[int, ...]) -> Fields:
        """What the format makes of the tensors. Those of a stranger may be of any size; what torch then refuses is a
        fault of the file."""
        try:
            return self.canonical(stored, shape)
        except (RuntimeError, ValueError, IndexError, TypeError) as error:
            sizes = ", ".join(f"{name} {list(tensor.shape)} of {tensor.dtype}" for name, tensor in stored.items())
            reason = str(error).splitlines()[0] if str(error) else type(error).__name__
            raise CheckpointError(
                f"{self.name}: the stored tensors do not go together as {self.scheme.name} ({sizes}): {reason}"
            ) from error


@frozen
class Whole:
    """A matrix that is read and canonicalized whole, because its fields cannot be cut, and then sliced."""

    shape: tuple[int, ...]
    scheme: Scheme
    ranges: AxisRanges

    def cut(self, fields: Fields, *, what: str) -> Fields:
        """The slice of the canonical fields of the whole."""
        self.scheme.check(fields, self.shape, what=what)
        scheme, shape = self.scheme, self.shape
        for axis, wanted in self.ranges.items():
            fields = scheme.slice(fields, shape, axis, wanted)
            scheme, shape = scheme.sliced(shape, {axis: wanted})
        return {name: tensor.clone() for name, tensor in fields.items()}  # lets go of the whole


@frozen
class TensorSource:
    """A plain tensor of the checkpoint."""

    name: str
    planned: Read = field(repr=False)

    @property
    def shape(self) -> tuple[int, ...]:
        """Its shape."""
        return self.planned.shape

    def read(self) -> Tensor:
        """Its values; may be a view of the file."""
        return self.planned.run()


@define(eq=False)
class Sources:
    """Look-up of one checkpoint's tensors by canonical module path."""

    checkpoint: Checkpoint
    names: WeightMap
    formats: Sequence[StoredFormat]
    _used: set[str] = field(factory=set, init=False)

    @classmethod
    def of(
        cls, checkpoint: Checkpoint, names: WeightMap, formats: Sequence[StoredFormat], tied: Sequence[tuple[str, str]]
    ) -> Sources:
        """With the model's tied modules added to the map: a checkpoint may store them under either name."""
        return cls(checkpoint, evolve(names, ties=(*names.ties, *tied)), formats)

    def part(self, path: str, shape: tuple[int, ...], ranges: AxisRanges) -> PartSource | None:
        """The matrix stored for a module path; ``None`` if there is none.

        Raises:
            CheckpointError: It is stored in a way that no format knows.
            PlanError: The wanted slice cannot be cut.
        """
        for bound in self.formats:
            form = bound.part(path, shape, _Module(self, path))
            if form is None:
                continue
            try:
                return self._planned(path, shape, form, ranges)
            except PlanError:
                found = self._from_fused(bound, path, shape, form, ranges)
                if found is None:
                    raise
                return found
        return None

    def _from_fused(
        self, bound: StoredFormat, path: str, shape: tuple[int, ...], form: FormatPart, ranges: AxisRanges
    ) -> PartSource | None:
        """A part of what is fused on disk and cannot be cut there: the fused matrix is read whole, as one of a module
        of its size, and its scheme is sliced."""
        found = (self._source(path, name) for name in form.fields if name not in form.made)
        fused = next((source for source in found if isinstance(source, Select)), None)
        if fused is None or not isinstance(fused.child, Leaf):
            return None
        axes = AXES[-len(shape) :]
        sizes = {**dict(zip(axes, shape, strict=True)), fused.axis: fused.size}
        size = tuple(sizes[axis] for axis in axes)
        together = bound.part(path, size, _Module(self, path))
        if together is None:
            return None
        inner = ranges.get(fused.axis, whole(length(fused.ranges)))
        return self._planned(
            path, size, together, {**ranges, fused.axis: compose(fused.ranges, inner)}, from_fused=True
        )

    def _planned(
        self, path: str, shape: tuple[int, ...], form: FormatPart, ranges: AxisRanges, *, from_fused: bool = False
    ) -> PartSource:
        reads: dict[str, Read] = {}
        names: list[str] = []
        misfits: list[str] = []
        scheme, wanted = form.scheme.sliced(shape, ranges) if ranges else (form.scheme, shape)
        cut = from_fused or _cuts_the_uncuttable(form, ranges)
        have = shape if cut else wanted
        for name, decl in form.fields.items():
            stacked = decl if len(shape) == 2 else decl.with_leading("expert", shape[0])
            source, tensors = self._origin(path, name, form)
            if from_fused and isinstance(source, Select):
                source = source.child
            reads[name] = source.plan(stacked, {} if cut else ranges, tensors)
            misfits += _misfit(source.names()[0], reads[name].shape, stacked, have)
            names += source.names()
        for name in form.known:
            self._use(path, name)
        uncut = Whole(shape, form.scheme, ranges) if cut else None
        return PartSource(names[0], wanted, scheme, form.canonical, reads, tuple(misfits), uncut)

    def _origin(self, path: str, name: str, form: FormatPart) -> tuple[Source, Mapping[str, TensorRef]]:
        """Where a field of a module comes from: the checkpoint, or the format itself."""
        if name in form.made:
            return Leaf(name), {name: MemoryTensor.of(name, form.made[name])}
        source = self._source(path, name)
        if source is None:
            raise CheckpointError(f"{path} is stored in a format that needs the field {name!r}, which is missing")
        self._use(path, name)
        return source, self.checkpoint.tensors

    def tensor(self, path: str, field: str, axes: int, ranges: AxisRanges) -> TensorSource | None:
        """The plain tensor of ``axes`` dimensions stored for a field of a module; ``None`` if there is none."""
        source = self._source(path, field)
        if source is None:
            return None
        self._use(path, field)
        last = ("expert", "out") if axes == 2 else ("out",)
        decl = TensorDecl(field, {name: Axis(i) for i, name in enumerate(last)} if axes else {})
        return TensorSource(source.names()[0], source.plan(decl, ranges, self.checkpoint.tensors))

    def wanted(self, path: str, field: str = "weight") -> list[str]:
        """Names under which a field of a module was looked for."""
        return [name for name in self.names.source(path, field).names() if name not in self.checkpoint.tensors]

    def unused(self) -> list[str]:
        """Tensors that nobody asked for."""
        return self.names.unexpected(self.checkpoint.tensors, self._used)

    def _source(self, path: str, field: str) -> Source | None:
        tensors = self.checkpoint.tensors
        found = self.names.resolve(path, field, tensors)
        return found if all(name in tensors for name in found.names()) else None

    def _use(self, path: str, field: str) -> None:
        """Mark a field as read, and the copies of it that tied modules may have."""
        for module in (path, *(other for group in self.names.ties if path in group for other in group)):
            self._used.update(self.names.source(module, field).names())


@frozen
class _Module:
    """One module's stored tensors, as formats may ask for them."""

    sources: Sources
    path: str

    def stored(self, field: str) -> StoredTensor | None:
        """See :class:`~tramontane.build.formats.Lookup`."""
        source = self.sources._source(self.path, field)
        if source is None:
            return None
        ref = self.sources.checkpoint.tensors[source.names()[0]]
        return StoredTensor(ref.name, ref.dtype, tuple(ref.shape), ref.encoding)

    def values(self, field: str) -> tuple[Tensor, ...]:
        """See :class:`~tramontane.build.formats.Lookup`."""
        source = self.sources._source(self.path, field)
        refs = [] if source is None else [self.sources.checkpoint.tensors[name] for name in source.names()]
        for ref in refs:
            if ref.nbytes > MAX_DESCRIPTION_BYTES:
                raise CheckpointError(
                    f"{ref.name} should describe how a matrix is stored, but has {ref.nbytes} bytes "
                    f"(at most {MAX_DESCRIPTION_BYTES} are read)"
                )
        return tuple(ref.read() for ref in refs)


def _cuts_the_uncuttable(form: FormatPart, ranges: AxisRanges) -> bool:
    """Whether a slice is wanted of fields that can only be read whole."""
    return any(not decl.sliceable for decl in form.fields.values()) and any(axis != "expert" for axis in ranges)


def _misfit(name: str, found: tuple[int, ...], decl: TensorDecl, shape: tuple[int, ...]) -> list[str]:
    """The stored tensor, if its shape does not go with the logical one."""
    sizes = dict(zip(AXES[-len(shape) :], shape, strict=True))
    wanted = list(found)
    for axis, place in decl.axes.items():
        wanted[place.dim] = place.stored_size(sizes[axis])
    return [] if wanted == list(found) else [f"{name} is {list(found)} instead of {wanted}"]
