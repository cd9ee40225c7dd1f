# SPDX-License-Identifier: Apache-2.0
"""A matrix in planes. Legend: O outputs, I inputs, T tokens."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import groupby

import torch
from attrs import define, field
from torch import Tensor

from tramontane.weights import Matrix
from tramontane_backend_cuda.planes import Form, form_of


@define(eq=False)
class Run:
    """Neighbouring parts of one scheme: what one kernel multiplies with.

    Parts are joined along the outputs unless outputs share scales, which would not meet at the seam.
    """

    form: Form
    first: int
    """The first output."""
    sizes: tuple[int, ...]
    """Outputs of each part."""
    planes: dict[str, Tensor] = field(factory=dict, repr=False)

    @property
    def outputs(self) -> int:
        """O."""
        return sum(self.sizes)

    def fill(self, index: int, planes: Mapping[str, Tensor], device: torch.device) -> None:
        """Take the planes of part ``index`` of this run."""
        before = sum(self.sizes[:index])
        for name, one in planes.items():
            if name not in self.planes:
                joined = (self.outputs, *one.shape[1:]) if len(self.sizes) > 1 else one.shape
                self.planes[name] = torch.empty(joined, dtype=one.dtype, device=device)
            self.planes[name].narrow(0, before, one.shape[0]).copy_(one)

    def part(self, index: int) -> dict[str, Tensor]:
        """The planes of one part, views."""
        if len(self.sizes) == 1:
            return self.planes
        return {name: one.narrow(0, sum(self.sizes[:index]), self.sizes[index]) for name, one in self.planes.items()}


@define(eq=False)
class PlaneStored:
    """Quantized parts in planes: one run per stretch of parts of equal scheme."""

    matrix: Matrix
    dtype: torch.dtype
    device: torch.device
    runs: list[Run] = field(repr=False)
    layout: str = "planes"

    @classmethod
    def of(cls, matrix: Matrix, dtype: torch.dtype, device: torch.device) -> PlaneStored | None:
        """An empty storage; ``None`` where a part has no planes or the matrix is a stack."""
        forms = [form_of(scheme) for scheme in matrix.schemes]
        if matrix.experts is not None or any(form is None for form in forms):
            return None
        if "rows" in matrix.uses and (len(forms) > 1 or any(form.rows != 1 for form in forms if form)):
            return None  # an embedding takes rows, and these share their scales
        runs, first = [], 0
        indices = range(len(forms))
        for _, stretch in groupby(indices, key=lambda i: (matrix.schemes[i], None if _joins(forms[i]) else i)):
            numbers = list(stretch)
            form = forms[numbers[0]]
            if form is None:
                return None
            runs.append(Run(form, first, tuple(matrix.parts[i].out_features for i in numbers)))
            first += runs[-1].outputs
        return cls(matrix, dtype, device, runs)

    @property
    def nbytes(self) -> int:
        """Bytes held, from the shapes; those of loaded planes once they are there."""
        if all(run.planes for run in self.runs):
            return sum(one.nbytes for run in self.runs for one in run.planes.values())
        shapes = [(part.out_features, self.matrix.in_features) for part in self.matrix.parts]
        return sum(scheme.nbytes(shape) for scheme, shape in zip(self.matrix.schemes, shapes, strict=True))

    def fill(self, part: int, fields: Mapping[str, Tensor]) -> None:
        """Take the canonical fields of one part."""
        run, index = self._place(part)
        run.fill(index, run.form.planes({name: one.to(self.device) for name, one in fields.items()}), self.device)

    def unpack(self, part: int) -> Mapping[str, Tensor]:
        """The canonical fields of one part, bit for bit."""
        run, index = self._place(part)
        return run.form.fields(run.part(index))

    def dequantize(self) -> Tensor:
        """All parts as floating point, joined along O."""
        width = self.matrix.in_features
        parts = [
            scheme.dequantize(self.unpack(i), (part.out_features, width)).to(self.dtype)
            for i, (scheme, part) in enumerate(zip(self.matrix.schemes, self.matrix.parts, strict=True))
        ]
        return parts[0] if len(parts) == 1 else torch.cat(parts)

    def rows(self, ids: Tensor) -> Tensor:
        """Rows by index: only these are decoded."""
        (run,) = self.runs
        (scheme,) = self.matrix.schemes
        taken = {name: one[ids] for name, one in run.planes.items()}
        return scheme.dequantize(run.form.fields(taken), (ids.numel(), self.matrix.in_features)).to(self.dtype)

    def expert(self, index: int) -> Tensor:
        """There are no stacks in planes: :meth:`of` refuses them."""
        raise IndexError(f"{self.matrix.path} is one matrix and has no expert {index}")

    def _place(self, part: int) -> tuple[Run, int]:
        for run in self.runs:
            if part < len(run.sizes):
                return run, part
            part -= len(run.sizes)
        raise IndexError(f"{self.matrix.path} has {len(self.matrix.parts)} parts")


def _joins(form: Form | None) -> bool:
    """Each output has scales of its own, so parts may lie one below the other."""
    return form is not None and form.rows == 1
