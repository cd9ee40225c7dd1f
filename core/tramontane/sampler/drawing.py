# SPDX-License-Identifier: Apache-2.0
"""The drawing step as one function of a path: what backends may do by kernels of their own.

Shapes: R rows, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from torch import Tensor

from tramontane.sampler.select import Knobs, draw_full, draw_top_k, draw_top_p, greedy
from tramontane.sampler.state import Path

Draw = Callable[[Path, Tensor, Knobs | None, Tensor | None], tuple[Tensor, Tensor]]
"""``draw(path, logits_RV, knobs, uniform_R)``: one token for each row of float32 logits, int64 [R], and the rows'
largest logits [R], NaN where a row has a NaN.

``knobs`` and ``uniform_R`` (in [0, 1), of the type of :func:`tramontane.sampler.select.wide`) are ``None`` for greedy
rows. The token of a row is what :mod:`tramontane.sampler.select` says, but for the rounding of sums; where the largest
logit is NaN or -inf it means nothing. Logits are not changed."""

_DRAWS: Mapping[Path, Callable[[Tensor, Knobs, Tensor], tuple[Tensor, Tensor]]] = {
    Path.FULL: draw_full,
    Path.TOP_K: draw_top_k,
    Path.TOP_P: draw_top_p,
}


def draw_rows(
    path: Path, logits_RV: Tensor, knobs: Knobs | None = None, uniform_R: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """:data:`Draw` by torch, on any device.

    Raises:
        ValueError: Rows that are not greedy came without knobs and numbers.
    """
    if path is Path.GREEDY:
        return greedy(logits_RV)
    if knobs is None or uniform_R is None:
        raise ValueError(f"rows of path {path.name} need knobs and random numbers")
    return _DRAWS[path](logits_RV, knobs, uniform_R)
