# SPDX-License-Identifier: Apache-2.0
"""Drawing tokens on the card: rows of any paths in the same launches, no sort, and nothing that the host waits for.

Shapes: R rows, V vocabulary.
"""

from __future__ import annotations

import torch
import triton
from torch import Tensor

from tramontane.sampler.drawing import draw_rows as draw_by_torch
from tramontane.sampler.drawing import numbers_missing
from tramontane.sampler.select import Knobs
from tramontane.sampler.state import Path
from tramontane_backend_cuda import drawing_kernels as kernels

CHUNK = 4096
"""Logits that one program reads."""
BUCKETS = 2048
LIST = 8192
"""Candidates of a row that are listed at most."""
TILE = 2048
"""Those of them that a program keeps in registers."""


def draw_rows(
    path: Path | None, logits_RV: Tensor, knobs: Knobs | None = None, uniform_R: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """:data:`tramontane.sampler.drawing.Draw`, by two launches for greedy rows and six at most.

    Raises:
        ValueError: Rows that are not greedy came without knobs and numbers.
    """
    rows = logits_RV.shape[0]
    if logits_RV.dtype is not torch.float32 or logits_RV.stride(1) != 1 or not rows:
        return draw_by_torch(path, logits_RV, knobs, uniform_R)  # of a model whose head is its own
    peak_R = torch.empty(rows, dtype=torch.float32, device=logits_RV.device)
    if path is Path.GREEDY:
        return _Rows(logits_RV, path, (peak_R,) * 4, peak_R, peak_R).draw(peak_R), peak_R
    if knobs is None or uniform_R is None or (path is None and knobs.path_R is None):
        raise numbers_missing(path)
    columns = (knobs.temperature_R, knobs.top_k_R, knobs.top_p_R, knobs.min_p_R)
    paths_R = peak_R if knobs.path_R is None else knobs.path_R
    return _Rows(logits_RV, path, columns, uniform_R, paths_R).draw(peak_R), peak_R


class _Rows:
    """Rows on their way to tokens: scratch memory, and the launches.

    Args:
        logits_RV: float32.
        path: Of all rows; ``None``: each has its own.
        columns: Temperature, top-k, top-p and min-p.
        uniform_R: Random numbers.
        paths_R: The rows' own paths, where they have any.
    """

    def __init__(
        self, logits_RV: Tensor, path: Path | None, columns: tuple[Tensor, ...], uniform_R: Tensor, paths_R: Tensor
    ) -> None:
        self.logits, self.path, self.paths, self.uniform = logits_RV, path, paths_R, uniform_R
        self.temperature, self.top_k, self.top_p, self.min_p = columns
        self.rows, self.vocab = logits_RV.shape
        self.parts = triton.cdiv(self.vocab, CHUNK)
        self.places = triton.next_power_of_2(self.parts)
        self.unit = float(1 << (62 - (self.vocab - 1).bit_length()))  # the sum of all weights is at most 2^62
        sizes = (2 * self.places, torch.float32), (self.places + 3 + LIST, torch.int32), (
            self.places + 4 + BUCKETS, torch.int64
        )  # fmt: skip
        self.scratch = [torch.empty(self.rows, size, dtype=kind, device=logits_RV.device) for size, kind in sizes]

    def draw(self, peak_R: Tensor) -> Tensor:
        """Tokens; ``peak_R`` gets the largest logits."""
        shape = (self.logits.stride(0), self.vocab, self.parts)
        known = (*shape, 0 if self.path is None else self.path.value, self.unit)
        common = {"PARTS": self.places, "BUCKETS": BUCKETS, "LIST": LIST, "num_warps": 8}
        wide, narrow = {**common, "CHUNK": CHUNK}, {**common, "TILE": TILE}
        grid, each = (self.rows, self.parts), (self.rows,)
        first = (self.logits, self.paths, self.temperature)
        kernels.look_at_rows[grid](self.logits, *self.scratch, *shape, **wide)
        if self.path is not Path.GREEDY:
            kernels.weigh_rows[grid](*first, self.top_k, self.top_p, self.min_p, *self.scratch, *known, **wide)
        if self.path not in (Path.GREEDY, Path.FULL):
            kernels.open_buckets[grid](*first, *self.scratch, *known, 0, **wide)
            kernels.bound_rows[each](*first, self.top_p, self.uniform, *self.scratch, *known, **narrow)
        if self.path in (None, Path.TOP_P):
            kernels.open_buckets[grid](*first, *self.scratch, *known, 1, **wide)
        tokens_R = torch.empty(self.rows, dtype=torch.int64, device=self.logits.device)
        kernels.take_tokens[each](
            *first, self.min_p, self.uniform, *self.scratch, tokens_R, peak_R, *known, CHUNK=CHUNK, **narrow
        )
        return tokens_R
