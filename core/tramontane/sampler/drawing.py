# SPDX-License-Identifier: Apache-2.0
"""The drawing step as one function of a path: what backends may do by kernels of their own.

Shapes: R rows, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from tramontane.sampler.select import Knobs, draw_full, draw_top_k, draw_top_p, greedy
from tramontane.sampler.state import Path

Draw = Callable[[Path | None, Tensor, Knobs | None, Tensor | None], tuple[Tensor, Tensor]]
"""``draw(path, logits_RV, knobs, uniform_R)``: one token for each row of float32 logits, int64 [R], and the rows'
largest logits [R], NaN where a row has a NaN.

``path`` is that of all rows. ``None``: each row has its own, as ``knobs.path_R`` and ``knobs.parts`` say; what draws
one path at a time hands those to :func:`draw_parts`.

``knobs`` and ``uniform_R`` (in [0, 1), of the type of :func:`tramontane.sampler.select.wide`) are ``None`` for greedy
rows. The token of a row is what :mod:`tramontane.sampler.select` says, but for the rounding of sums; where the largest
logit is NaN or -inf it means nothing. Logits are not changed."""

_DRAWS: Mapping[Path, Callable[[Tensor, Knobs, Tensor], tuple[Tensor, Tensor]]] = {
    Path.FULL: draw_full,
    Path.TOP_K: draw_top_k,
    Path.TOP_P: draw_top_p,
}


def draw_rows(
    path: Path | None, logits_RV: Tensor, knobs: Knobs | None = None, uniform_R: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """:data:`Draw` by torch, on any device.

    Raises:
        ValueError: Rows that are not greedy came without knobs and numbers.
    """
    if path is Path.GREEDY:
        return greedy(logits_RV)
    if knobs is None or uniform_R is None:
        raise numbers_missing(path)
    if path is None:
        return draw_parts(draw_rows, logits_RV, knobs, uniform_R)
    return _DRAWS[path](logits_RV, knobs, uniform_R)


def numbers_missing(path: Path | None) -> ValueError:
    """What a :data:`Draw` raises for rows that are not greedy and came without knobs or numbers."""
    return ValueError(f"rows of {'several paths' if path is None else path.name} need knobs and random numbers")


def draw_parts(draw: Draw, logits_RV: Tensor, knobs: Knobs, uniform_R: Tensor) -> tuple[Tensor, Tensor]:
    """Rows of several paths by a :data:`Draw` of one at a time: of its rows where they are known, else of all.

    Raises:
        ValueError: The knobs do not say which row takes which path.
    """
    if knobs.path_R is None or not knobs.parts:
        raise ValueError("rows of several paths need knobs that say which row takes which")
    rows = logits_RV.shape[0]
    tokens_R = torch.zeros(rows, dtype=torch.int64, device=logits_RV.device)
    peak_R = logits_RV.new_zeros(rows)
    for part in knobs.parts:
        at = part.rows_R
        if at is not None:
            number_R = None if part.knobs is None else uniform_R[at]
            tokens_R[at], peak_R[at] = draw(part.path, logits_RV[at], part.knobs, number_R)
        else:
            found_R, largest_R = draw(part.path, logits_RV, part.knobs, uniform_R)
            own_R = knobs.path_R == part.path.value
            tokens_R, peak_R = torch.where(own_R, found_R, tokens_R), torch.where(own_R, largest_R, peak_R)
    return tokens_R, peak_R
