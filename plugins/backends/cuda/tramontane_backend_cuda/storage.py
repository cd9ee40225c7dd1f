# SPDX-License-Identifier: Apache-2.0
"""Matrices in planes. Legend: X experts, O outputs, I inputs, T tokens."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import groupby

import torch
from attrs import define, field
from torch import Tensor

from tramontane.schemes import Dense
from tramontane.weights import Matrix
from tramontane_backend_cuda.forms import form_of
from tramontane_backend_cuda.planes import Form


@define(eq=False)
class Run:
    """Neighbouring parts of one scheme: what one kernel multiplies with.

    Planes are [X * O, ..], the outputs of an expert together; scales that several outputs share have fewer rows.
    """

    form: Form
    first: int
    """The first output."""
    sizes: tuple[int, ...]
    """Outputs of each part."""
    experts: int = 1
    planes: dict[str, Tensor] = field(factory=dict, repr=False)

    @property
    def outputs(self) -> int:
        """O."""
        return sum(self.sizes)

    def fill(self, index: int, planes: Mapping[str, Tensor], device: torch.device) -> None:
        """Take the planes of part ``index`` of this run."""
        for name, one in planes.items():
            sizes = self._rows(name)
            if name not in self.planes:
                joined = (self.experts * sum(sizes), *one.shape[1:])
                self.planes[name] = torch.empty(joined, dtype=one.dtype, device=device)
            self._place(name, index).copy_(one.view(self.experts, -1, *one.shape[1:]))

    def part(self, index: int, expert: int | None = None) -> dict[str, Tensor]:
        """The planes of one part, of all experts or of one: views where one matrix is meant."""
        places = {name: self._place(name, index) for name in self.planes}
        return {name: one.flatten(0, 1) if expert is None else one[expert] for name, one in places.items()}

    def chosen(self, ids: Tensor) -> dict[str, Tensor]:
        """Planes of some outputs, each with scales of its own."""
        return {
            name: one[ids // self.form.rows if name == "scale" else ids] for name, one in self.planes.items()
        }  # fmt: skip

    def _rows(self, name: str) -> list[int]:
        """Rows of a plane that each part has."""
        return [-(-size // self.form.rows) if name == "scale" else size for size in self.sizes]

    def _place(self, name: str, index: int) -> Tensor:
        """[X, rows, ..] of one part."""
        sizes, one = self._rows(name), self.planes[name]
        return one.view(self.experts, -1, *one.shape[1:]).narrow(1, sum(sizes[:index]), sizes[index])


@define(eq=False)
class PlaneStored:
    """Quantized parts in planes: one run per stretch of parts of equal scheme."""

    matrix: Matrix
    dtype: torch.dtype
    device: torch.device
    runs: list[Run] = field(repr=False)
    layout: str = "planes"
    act_scales: dict[int, Tensor] = field(factory=dict, repr=False)
    """Static scales of activations by part."""

    @classmethod
    def of(cls, matrix: Matrix, dtype: torch.dtype, device: torch.device) -> PlaneStored | None:
        """An empty storage; ``None`` where a part has no planes, or all parts are dense."""
        forms = [form_of(scheme) for scheme in matrix.schemes]
        if any(form is None for form in forms) or all(isinstance(scheme, Dense) for scheme in matrix.schemes):
            return None
        if "rows" in matrix.uses and len(forms) > 1:
            return None
        runs, first = [], 0
        for _, stretch in groupby(range(len(forms)), key=_stretches(matrix, forms)):
            numbers = list(stretch)
            form, sizes = forms[numbers[0]], tuple(matrix.parts[i].out_features for i in numbers)
            if form is None or (matrix.experts is not None and any(size % form.rows for size in sizes)):
                return None
            runs.append(Run(form, first, sizes, matrix.experts or 1))
            first += runs[-1].outputs
        return cls(matrix, dtype, device, runs)

    @property
    def nbytes(self) -> int:
        """Bytes held, from the shapes; those of loaded planes once they are there."""
        if all(run.planes for run in self.runs):
            return sum(one.nbytes for run in self.runs for one in run.planes.values())
        shapes = [self._shape(i) for i in range(len(self.matrix.parts))]
        return sum(scheme.nbytes(shape) for scheme, shape in zip(self.matrix.schemes, shapes, strict=True))

    def fill(self, part: int, fields: Mapping[str, Tensor]) -> None:
        """Take the canonical fields of one part."""
        run, index = self._find(part)
        given = {name: one.to(self.device) for name, one in fields.items()}
        if "act_scale" in given:
            self.act_scales[part] = given.pop("act_scale")
        if self.matrix.experts is not None:
            given = {name: one.flatten(0, 1) if one.dim() > 1 else one for name, one in given.items()}
        run.fill(index, run.form.planes(given), self.device)

    def unpack(self, part: int) -> Mapping[str, Tensor]:
        """The canonical fields of one part, bit for bit."""
        run, index = self._find(part)
        found = run.form.fields(run.part(index), self.matrix.in_features)
        wanted = self.matrix.schemes[part].fields(self._shape(part))
        made = {name: _shaped(one, wanted[name].shape) for name, one in found.items()}
        return made | {"act_scale": self.act_scales[part]} if part in self.act_scales else made

    def dequantize(self) -> Tensor:
        """All parts as floating point, joined along O."""
        parts = [
            scheme.dequantize(self.unpack(i), self._shape(i)).to(self.dtype)
            for i, scheme in enumerate(self.matrix.schemes)
        ]
        return parts[0] if len(parts) == 1 else torch.cat(parts, dim=-2)

    def rows(self, ids: Tensor) -> Tensor:
        """Rows by index: only these are decoded."""
        (run,), (scheme,) = self.runs, self.matrix.schemes
        if run.form.rows > 1:  # their scales are shared with others
            return self.dequantize()[ids]
        shape = (ids.numel(), self.matrix.in_features)
        found, wanted = run.form.fields(run.chosen(ids), shape[1]), scheme.fields(shape)
        fields = {name: _shaped(one, wanted[name].shape) for name, one in found.items()}
        return scheme.dequantize(fields, shape).to(self.dtype)

    def expert(self, index: int) -> Tensor:
        """One matrix of a stack: only this one is decoded."""
        parts = []
        for i, scheme in enumerate(self.matrix.schemes):
            run, place = self._find(i)
            shape = self._shape(i)[-2:]
            found, wanted = run.form.fields(run.part(place, index), shape[1]), scheme.plain().fields(shape)
            fields = {name: _shaped(one, wanted[name].shape) for name, one in found.items()}
            parts.append(scheme.dequantize(fields, shape).to(self.dtype))
        return parts[0] if len(parts) == 1 else torch.cat(parts)

    def _shape(self, part: int) -> tuple[int, ...]:
        base = (self.matrix.parts[part].out_features, self.matrix.in_features)
        return base if self.matrix.experts is None else (self.matrix.experts, *base)

    def _find(self, part: int) -> tuple[Run, int]:
        for run in self.runs:
            if part < len(run.sizes):
                return run, part
            part -= len(run.sizes)
        raise IndexError(f"{self.matrix.path} has {len(self.matrix.parts)} parts")


def _shaped(one: Tensor, shape: tuple[int, ...]) -> Tensor:
    """A field in its canonical shape; one that its plane repeats for every output, once for each matrix."""
    count = torch.Size(shape).numel()
    if one.numel() > count:
        one = one.reshape(count, -1)[:, 0]
    return one.reshape(shape)


def _stretches(matrix: Matrix, forms: Sequence[Form | None]) -> object:
    """The key by which neighbouring parts are one run: a part whose outputs do not fill their last block of shared
    scales ends it."""
    numbers, number = [], 0
    for index, form in enumerate(forms):
        if index and (
            matrix.schemes[index] != matrix.schemes[index - 1]
            or form is None
            or matrix.parts[index - 1].out_features % form.rows
        ):
            number += 1
        numbers.append(number)
    return numbers.__getitem__
