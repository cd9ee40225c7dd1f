# SPDX-License-Identifier: Apache-2.0
"""Where the logical axes of a weight lie in a stored tensor.

Turns ranges on ``expert``, ``out`` and ``in`` into slices of stored dimensions and refuses cuts that cannot work. It
reads nothing and knows neither names nor formats.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType

from attrs import evolve, field, frozen

from tramontane.errors import PlanError
from tramontane.tensors.ranges import AxisRanges, Ranges, merge

#: The logical axes a weight can have, in the order of its logical shape ``[expert, out, in]``.
AXES = ("expert", "out", "in")


@frozen
class Axis:
    """How one logical axis lies in a stored dimension.

    Every ``block`` logical elements occupy ``width`` stored indices (a ragged tail is rounded up to a whole block); the
    first stored index is ``start`` and stored indices are ``step`` apart. Packed 4-bit bytes are
    ``Axis(1, block=2)``, a scale per 128 inputs ``Axis(1, block=128)``, 3-bit words ``Axis(0, block=32, width=3)``,
    the odd rows of an interleaved fusion ``Axis(0, start=1, step=2)``.
    """

    dim: int
    block: int = 1
    width: int = 1
    start: int = 0
    step: int = 1

    def __attrs_post_init__(self) -> None:
        if self.dim < 0 or self.block < 1 or self.width < 1 or self.start < 0 or self.step < 1:
            raise PlanError(f"not a possible axis: {self!r}")

    def stored_size(self, size: int) -> int:
        """Stored indices that ``size`` logical elements occupy."""
        return -(-size // self.block) * self.width

    def slices(self, ranges: Ranges | None, extent: int, *, what: str) -> tuple[slice, ...]:
        """Stored slices of the ranges in a dimension of ``extent`` stored indices.

        Args:
            ranges: Logical ranges; ``None`` means all that is stored.
            extent: Size of the stored dimension.
            what: Names tensor and axis in errors.

        Raises:
            PlanError: A range starts or ends inside a block, or reaches past the stored dimension.
        """
        if ranges is None:
            return (slice(self.start, extent, self.step),)
        stored = -(-max(extent - self.start, 0) // self.step)
        found = []
        for number, (start, stop) in enumerate(wanted := merge(ranges), 1):
            low, high = start // self.block * self.width, self.stored_size(stop)
            if start < 0 or start > stop or high > stored:
                raise PlanError(f"{what}: the range {start}:{stop} lies outside the {stored} stored indices")
            for cut in (start, stop):
                if cut % self.block and not (cut == stop and high == stored and number == len(wanted)):
                    raise PlanError(self._refusal(what, cut), hint=_CUT_HINT)
            found.append(slice(self.start + self.step * low, self.start + self.step * (high - 1) + 1, self.step))
        return tuple(found) or (slice(0, 0, 1),)

    def _refusal(self, what: str, cut: int) -> str:
        below = cut // self.block * self.block
        return (
            f"{what}: cannot be cut at {cut}, because every {self.block} elements are stored together "
            f"(the nearest possible cuts are {below} and {below + self.block})"
        )


_CUT_HINT = "choose a parallel size whose parts are whole blocks, or load this tensor unsharded"


def _read_only(axes: Mapping[str, Axis]) -> Mapping[str, Axis]:
    wrong = [name for name in axes if name not in AXES]
    if wrong:
        raise PlanError(f"no such logical axis: {', '.join(wrong)} (there are {', '.join(AXES)})")
    return MappingProxyType(dict(axes))


@frozen
class TensorDecl:
    """One tensor of a weight: its field name, and which stored dimension carries which logical axis.

    A logical axis that is absent is replicated: the tensor is the same for every slice of that axis.

    Attributes:
        name: The field, such as ``weight``, ``bias``, ``qweight`` or ``scales``.
        axes: Logical axis -> :class:`Axis`.
        view: Shape to view the stored tensor as before ``axes`` apply; one entry may be -1.
        sliceable: False where slices cannot be read (blocks that cross rows): the whole tensor is canonicalized and
            the scheme is sliced afterwards. The axes of such a tensor are not stated.
    """

    name: str
    axes: Mapping[str, Axis] = field(converter=_read_only, factory=dict)
    view: tuple[int, ...] | None = None
    sliceable: bool = True

    def slices(self, shape: Sequence[int], ranges: AxisRanges, *, what: str) -> tuple[tuple[slice, ...], ...]:
        """Per stored dimension the slices that hold the ranges; ``shape`` is the stored (viewed) shape."""
        per_dim: list[tuple[slice, ...]] = [(slice(0, extent, 1),) for extent in shape]
        for name, axis in self.axes.items():
            if axis.dim >= len(shape):
                raise PlanError(
                    f"{what} has the shape {list(shape)}, so it has no dimension {axis.dim} for axis {name!r}"
                )
            per_dim[axis.dim] = axis.slices(ranges.get(name), shape[axis.dim], what=f"{what}, axis {name!r}")
        return tuple(per_dim)

    def without(self, axis: str) -> TensorDecl:
        """The same tensor for one element of ``axis``: its dimension is gone, later ones move down."""
        gone = self.axes.get(axis)
        if gone is None:
            return self
        axes = {k: evolve(a, dim=a.dim - (a.dim > gone.dim)) for k, a in self.axes.items() if k != axis}
        view = None if self.view is None else self.view[: gone.dim] + self.view[gone.dim + 1 :]
        return evolve(self, axes=axes, view=view)

    def with_leading(self, axis: str, size: int) -> TensorDecl:
        """The same tensor stacked ``size`` times along a new first dimension that carries ``axis``."""
        axes = {axis: Axis(0)} | {k: evolve(a, dim=a.dim + 1) for k, a in self.axes.items()}
        return evolve(self, axes=axes, view=None if self.view is None else (size, *self.view))

    def unsqueezed(self, dim: int) -> TensorDecl:
        """The same tensor with a further dimension of one element before ``dim``."""
        axes = {k: evolve(a, dim=a.dim + (a.dim >= dim)) for k, a in self.axes.items()}
        return evolve(self, axes=axes, view=None if self.view is None else (*self.view[:dim], 1, *self.view[dim:]))

    def squeezed(self, dim: int) -> TensorDecl:
        """The same tensor without the dimension ``dim``, and without an axis that it carries."""
        axes = {k: evolve(a, dim=a.dim - (a.dim > dim)) for k, a in self.axes.items() if a.dim != dim}
        return evolve(self, axes=axes, view=None if self.view is None else self.view[:dim] + self.view[dim + 1 :])

    def transposed(self) -> TensorDecl:
        """The same tensor with the dimensions of ``out`` and ``in`` exchanged.

        Raises:
            PlanError: An axis is packed in blocks, or one of the two is absent.
        """
        out, into = self.axes.get("out"), self.axes.get("in")
        if out is None or into is None or (out.block, out.width, into.block, into.width) != (1, 1, 1, 1) or self.view:
            raise PlanError(f"the field {self.name!r} is packed, so it cannot be stored transposed")
        return evolve(self, axes={**self.axes, "out": evolve(out, dim=into.dim), "in": evolve(into, dim=out.dim)})
