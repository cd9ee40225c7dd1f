# SPDX-License-Identifier: Apache-2.0
"""How much the error of each input of a matrix counts: mean squares of the activations that meet it.

Sums are collected while a model reads a text (:mod:`tramontane.load.calibrate`) or come from a file. Importances are
their means, by the model's names. Formats of files are plugins' (:class:`~tramontane.records.ImportanceSpec`).

Legend: X matrices of a stack (1 for a lone matrix), I inputs.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from attrs import define, field, frozen
from torch import Tensor

from tramontane.errors import CheckpointError

Importances = Mapping[str, Tensor]
"""Module path -> importance of each input's error, float32 [I] or [X, 1, I]."""


@define(eq=False)
class Sums:
    """What one matrix, or each of a stack, was given."""

    squares_XI: Tensor = field(repr=False)
    """Sum of the squares of each input."""
    counts_X: Tensor = field(repr=False)
    """How many rows were summed."""

    @classmethod
    def zero(cls, matrices: int, inputs: int) -> Sums:
        """Nothing yet."""
        return cls(torch.zeros(matrices, inputs, dtype=torch.float64), torch.zeros(matrices, dtype=torch.float64))

    def add(self, index: int, x_NI: Tensor) -> None:
        """Count rows that a matrix was given."""
        self.squares_XI[index] += x_NI.double().square().sum(0).cpu()
        self.counts_X[index] += x_NI.shape[0]

    def means(self) -> Tensor:
        """Mean squares, float32 [X, I]; 1 for a matrix of a stack that nothing went to."""
        counts_X1 = self.counts_X.unsqueeze(1)
        means_XI = self.squares_XI.double() / counts_X1.double().clamp(min=1e-30)
        return torch.where(counts_X1 > 0, means_XI, torch.ones_like(means_XI)).float()


Statistics = Mapping[str, Sums]
"""Module path -> sums."""


@frozen(kw_only=True)
class ImportanceFile:
    """Content of a file: sums by the names of the format's tensors, and where they come from."""

    entries: Mapping[str, Sums] = field(repr=False)
    chunks: int = 0
    """How many pieces of text were read."""
    chunk_tokens: int = 0
    """Tokens of a piece; 0 if the file does not say."""
    texts: tuple[str, ...] = ()
    """Names of the texts."""


def importances_of(statistics: Statistics) -> Importances:
    """What quantizing weighs by."""
    return {path: _spread(sums.means()) for path, sums in statistics.items()}


def shaped(name: str, sums: Sums, matrices: int, inputs: int) -> Sums:
    """Sums of a stored tensor for a module of that size. Files that are silent about stacks keep all in one row.

    Raises:
        CheckpointError: They belong to another shape.
    """
    if sums.squares_XI.numel() != matrices * inputs or sums.counts_X.numel() not in (1, matrices):
        raise CheckpointError(
            f"the importances of {name} are for {sums.squares_XI.numel()} inputs of {sums.counts_X.numel()} matrices, "
            f"the model has {matrices} x {inputs}",
            hint="they were collected from another model",
        )
    return Sums(sums.squares_XI.reshape(matrices, inputs), sums.counts_X.expand(matrices))


def _spread(means_XI: Tensor) -> Tensor:
    return means_XI[0] if len(means_XI) == 1 else means_XI.unsqueeze(1)
