# SPDX-License-Identifier: Apache-2.0
"""Drawing tokens natively (``native/kernels/draw.cpp``): a vocabulary of 152,000 costs microseconds, not milliseconds.

Shapes: R rows, V vocabulary.
"""

from __future__ import annotations

import ctypes
from functools import partial

import torch
from torch import Tensor

from tramontane.sampler.drawing import draw_parts, numbers_missing
from tramontane.sampler.drawing import draw_rows as draw_by_torch
from tramontane.sampler.select import Knobs
from tramontane.sampler.state import Path
from tramontane_backend_cpu import abi
from tramontane_backend_cpu.kernel import raise_for
from tramontane_backend_cpu.library import Pool, library


def draw_rows(
    pool: Pool, path: Path | None, logits_RV: Tensor, knobs: Knobs | None = None, uniform_R: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """:data:`tramontane.sampler.drawing.Draw`, on the pool's threads where the rows are worth it."""
    if logits_RV.dtype != torch.float32 or logits_RV.stride(1) != 1:  # of a model whose head is its own
        return draw_by_torch(path, logits_RV, knobs, uniform_R)
    if path is None and knobs is not None and uniform_R is not None:
        return draw_parts(partial(draw_rows, pool), logits_RV, knobs, uniform_R)
    rows, vocab = logits_RV.shape
    tokens_R, peak_R = torch.empty(rows, dtype=torch.int64), torch.empty(rows)
    asked: tuple[int | None, ...] = (None,) * 5
    if knobs is not None and uniform_R is not None:
        columns = (knobs.temperature_R, knobs.top_k_R, knobs.top_p_R, knobs.min_p_R, uniform_R)
        asked = tuple(column.data_ptr() for column in columns)
    if path is None or (path is not Path.GREEDY and asked[0] is None):
        raise numbers_missing(path)
    draw = abi.Draw(
        logits_RV.data_ptr(), logits_RV.stride(0), rows, vocab, *asked, tokens_R.data_ptr(), peak_R.data_ptr(),
        abi.DRAW_PATHS[path.name],
    )  # fmt: skip
    raise_for(library().tm_draw_rows(pool.handle, ctypes.byref(draw)), "drawing")
    return tokens_R, peak_R
