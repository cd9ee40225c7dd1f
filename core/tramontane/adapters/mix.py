# SPDX-License-Identifier: Apache-2.0
"""Which token of a batch uses which adapter, with which weight.

``mix[T, A]`` is the truth: a weight for every token and column, at a fixed address. For LoRA it is one-hot, and then
the host knows it too, as runs of tokens per column, which spares kernels all other columns.

Legend: T tokens, A columns, R rows.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from attrs import frozen
from numpy.typing import NDArray
from torch import Tensor

from tramontane.sequence import Row


@frozen(eq=False)
class Adapted:
    """Tokens that use the adapter of one column, each with weight 1: a slice where they lie side by side."""

    column: int
    tokens: slice | Tensor


class MixBuffer:
    """The mix of one engine's batches.

    Args:
        max_tokens: Most tokens of a step.
        columns: Most adapters that are loaded at a time.
        device: Where batches are.
    """

    def __init__(self, max_tokens: int, columns: int, device: torch.device) -> None:
        self._mix_TA = torch.zeros(max_tokens, columns, device=device)
        self._device = device

    def write(self, rows: Sequence[Row], tokens: int) -> tuple[Tensor, list[Adapted]]:
        """The mix of a batch of ``tokens`` tokens, padding included, and the same by column. The next call overwrites
        it."""
        column_R = np.array([row.seq.adapter for row in rows], np.int64)
        column_N = np.repeat(column_R, [row.count for row in rows])
        used_U = np.flatnonzero(column_N >= 0)
        mix_TA = self._mix_TA[:tokens]
        mix_TA.zero_()
        where = torch.from_numpy(used_U).to(self._device), torch.from_numpy(column_N[used_U]).to(self._device)
        mix_TA[where] = 1.0
        return mix_TA, [self._run(column, column_N) for column in np.unique(column_N[used_U]).tolist()]

    def _run(self, column: int, column_N: NDArray[np.int64]) -> Adapted:
        token_U = np.flatnonzero(column_N == column)
        first, last = int(token_U[0]), int(token_U[-1])
        if last - first + 1 == len(token_U):
            return Adapted(column, slice(first, last + 1))
        return Adapted(column, torch.from_numpy(token_U).to(self._device))
