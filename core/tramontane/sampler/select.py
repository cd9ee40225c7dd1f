# SPDX-License-Identifier: Apache-2.0
"""From one row of logits to one token: temperature, top-k, top-p, min-p and the inverse-CDF draw.

Every row is handled by the path its own parameters ask for, so what else is in the batch cannot change a result:

* ``greedy``: the arg-max, lowest id on ties; no random number.
* ``draw_full``: no top-k and no top-p. Nothing is sorted; the CDF runs over the vocabulary in blocks.
* ``draw_top_k``: a few candidates in descending order.
* ``draw_top_p``: top-p alone. On the host, a few hundred candidates usually hold the mass; where they do not, and on a
  device (which must not wait for the host) always, the row is sorted.

Candidates are in descending order of logit, equal logits by ascending id, everywhere. The functions never read a value
back from the device. Shapes: R rows, V vocabulary, K candidates.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from attrs import frozen
from torch import Tensor

from tramontane.sampler.state import Path

_LARGEST = torch.finfo(torch.float32).max
_BLOCK = 256
_TOP_BLOCK = 64
_FIRST_CANDIDATES = 512
_COLDEST = 1e-30
_FAINTEST = -80.0
"""Below this exp counts as 0: float32 sums do not see 1e-35 beside the largest weight, 1. Vector code is slow where the
result is denormal or the argument -inf: 9.3 instead of 2.3 ms for 8 rows of 152k with half of their tokens masked."""
_FAINTEST_WEIGHT = 2e-35
"""Above exp(-80), whatever its rounding."""


@frozen
class Knobs:
    """The parameters of the drawing step, one value a row, on the logits' device."""

    temperature_R: Tensor
    """float32, above 0."""
    top_k_R: Tensor
    """int64; at least 1 where used."""
    top_p_R: Tensor
    """float64 in (0, 1]; 1 keeps all."""
    min_p_R: Tensor
    """float64 in [0, 1]."""
    most_k: int
    """The largest of ``top_k_R``."""
    any_min_p: bool
    """Whether some row has a min-p."""
    path_R: Tensor | None = None
    """int64: the value of each row's path, where they take several."""
    parts: Sequence[Part] = ()
    """The rows of each path, where they take several."""

    def pick(self, rows_R: Tensor) -> Knobs:
        """The knobs of some of the rows."""
        return Knobs(
            self.temperature_R[rows_R],
            self.top_k_R[rows_R],
            self.top_p_R[rows_R],
            self.min_p_R[rows_R],
            self.most_k,
            self.any_min_p,
        )


@frozen
class Part:
    """Rows of a step that take one path."""

    path: Path
    rows_R: Tensor | None
    """int64; ``None`` in a step that is recorded, whose rows may take any: ``path_R`` tells."""
    knobs: Knobs | None
    """``None`` for greedy rows."""


def wide(device: torch.device) -> torch.dtype:
    """The float type of cumulative sums: float64 where the device has it."""
    return torch.float32 if device.type == "mps" else torch.float64


def top(logits_RV: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """The ``count`` largest logits of each row, descending, equal ones by ascending id.

    ``torch.topk`` leaves the order of equal values open, and logits that were bfloat16 are full of them; a token would
    then depend on the kernel and on the batch. Here the order is total. In a large vocabulary only the blocks with the
    largest maxima are looked into: if ``count`` other blocks come before a block in the order of (maximum, position),
    none of its entries can be among the ``count`` first.

    Returns:
        values float32 [R, count] and ids int64 [R, count].
    """
    rows, vocab = logits_RV.shape
    whole = vocab // _TOP_BLOCK
    if whole < 4 * count:
        return _top_of_few(logits_RV, count)
    blocks_RBb = logits_RV[:, : whole * _TOP_BLOCK].reshape(rows, whole, _TOP_BLOCK)
    best_RK = _top_of_few(blocks_RBb.amax(dim=2), count)[1].sort(dim=1).values  # ascending: places are ordered as ids
    ids_RN = (best_RK[:, :, None] * _TOP_BLOCK + torch.arange(_TOP_BLOCK, device=logits_RV.device)).flatten(1)
    rest = torch.arange(whole * _TOP_BLOCK, vocab, device=logits_RV.device).expand(rows, -1)
    ids_RN = torch.cat((ids_RN, rest), dim=1)
    values_RK, places_RK = _top_of_few(logits_RV.gather(1, ids_RN), count)
    return values_RK, ids_RN.gather(1, places_RK)


def _top_of_few(logits_RN: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """:func:`top` on rows that are not long: value and place are packed into one integer that orders both."""
    width = logits_RN.shape[1]
    bits_RN = (logits_RN + 0.0).view(torch.int32)  # + 0.0 turns -0.0 into 0.0
    ordered_RN = bits_RN ^ ((bits_RN >> 31) & 0x7FFFFFFF)
    falling_N = torch.arange(width - 1, -1, -1, device=logits_RN.device)
    keys_RN = (ordered_RN.to(torch.int64) << 32).add_(falling_N)
    places_RK = (width - 1) - (keys_RN.topk(min(count, width), dim=1).values & 0xFFFFFFFF)
    return logits_RN.gather(1, places_RK), places_RK


def greedy(logits_RV: Tensor) -> tuple[Tensor, Tensor]:
    """The arg-max of each row (int64 [R], lowest id on ties) and its logit [R], which is NaN if the row has a NaN."""
    peak = logits_RV.max(dim=1)  # faster than argmax on the host: 0.07 against 0.20 ms for a row of 152k
    return peak.indices, peak.values


def draw_full(logits_RV: Tensor, knobs: Knobs, uniform_R: Tensor) -> tuple[Tensor, Tensor]:
    """Draw from the whole vocabulary (min-p applies). Returns tokens int64 [R] and the rows' largest logits [R]."""
    rows = logits_RV.shape[0]
    peak_R = logits_RV.amax(dim=1)
    weights_RBb = _weights(logits_RV, peak_R, knobs).view(rows, -1, _BLOCK)
    sums_RB = weights_RBb.sum(dim=2).to(wide(logits_RV.device))
    ends_RB = sums_RB.cumsum(dim=1)
    target_R1 = uniform_R[:, None] * ends_RB[:, -1:]
    block_R1 = _first_beyond(ends_RB, target_R1)
    rest_R1 = target_R1 - (ends_RB.gather(1, block_R1) - sums_RB.gather(1, block_R1))
    inner_Rb = weights_RBb[torch.arange(rows, device=block_R1.device), block_R1[:, 0]].to(rest_R1.dtype).cumsum(dim=1)
    within_R1 = _first_beyond(inner_Rb, rest_R1)
    return (block_R1 * _BLOCK + within_R1)[:, 0].clamp_(max=logits_RV.shape[1] - 1), peak_R


def draw_top_k(logits_RV: Tensor, knobs: Knobs, uniform_R: Tensor) -> tuple[Tensor, Tensor]:
    """Draw from the top-k candidates (top-p and min-p apply). Returns as :func:`draw_full`."""
    values_RK, ids_RK = top(logits_RV, knobs.most_k)
    return _draw_candidates(values_RK, ids_RK, None, knobs, uniform_R), values_RK[:, 0]


def draw_top_p(logits_RV: Tensor, knobs: Knobs, uniform_R: Tensor) -> tuple[Tensor, Tensor]:
    """Draw with top-p and no top-k (min-p applies). Returns as :func:`draw_full`."""
    peak_R = logits_RV.amax(dim=1)
    weights_RBb = _weights(logits_RV, peak_R, knobs, floor=False).view(logits_RV.shape[0], -1, _BLOCK)
    mass_R = weights_RBb.sum(dim=2).sum(dim=1, dtype=wide(logits_RV.device))
    if logits_RV.device.type != "cpu" or logits_RV.shape[1] <= _FIRST_CANDIDATES:
        return _draw_sorted(logits_RV, mass_R, knobs, uniform_R), peak_R
    values_RK, ids_RK = top(logits_RV, _FIRST_CANDIDATES)
    held_R = _candidate_weights(values_RK, knobs).sum(dim=1)
    short = (held_R < knobs.top_p_R * mass_R).nonzero()[:, 0]
    tokens_R = _draw_candidates(values_RK, ids_RK, mass_R, knobs, uniform_R)
    if short.numel():
        tokens_R[short] = _draw_sorted(logits_RV[short], mass_R[short], knobs.pick(short), uniform_R[short])
    return tokens_R, peak_R


def _draw_sorted(logits_RV: Tensor, mass_R: Tensor, knobs: Knobs, uniform_R: Tensor) -> Tensor:
    ordered = logits_RV.sort(dim=1, descending=True, stable=True)
    return _draw_candidates(ordered.values, ordered.indices, mass_R, knobs, uniform_R)


def _draw_candidates(
    values_RK: Tensor, ids_RK: Tensor, mass_R: Tensor | None, knobs: Knobs, uniform_R: Tensor
) -> Tensor:
    """Filter candidates in descending order and draw one. ``mass_R``: the mass top-p refers to; None: that of top-k."""
    weights_RK = _candidate_weights(values_RK, knobs)
    if mass_R is None:
        weights_RK = weights_RK * (torch.arange(weights_RK.shape[1], device=values_RK.device) < knobs.top_k_R[:, None])
    ends_RK = weights_RK.cumsum(dim=1)
    mass_R1 = ends_RK[:, -1:] if mass_R is None else mass_R[:, None]
    top_p_R1 = knobs.top_p_R[:, None]
    limit_R1 = torch.where(top_p_R1 >= 1.0, torch.inf, top_p_R1 * mass_R1)
    # A token is kept if the mass before it is below the limit: the one that crosses it stays. All tests hold for a
    # prefix of the candidates, because weights fall.
    before_RK = torch.nn.functional.pad(ends_RK[:, :-1], (1, 0))
    keep_RK = (before_RK < limit_R1) & (weights_RK >= knobs.min_p_R[:, None]) & (weights_RK > 0)
    last_R1 = (keep_RK.sum(dim=1, keepdim=True) - 1).clamp_(min=0)
    target_R1 = uniform_R[:, None] * ends_RK.gather(1, last_R1)
    chosen_R1 = torch.minimum(torch.searchsorted(ends_RK, target_R1, right=True), last_R1)
    return ids_RK.gather(1, chosen_R1)[:, 0]


def _candidate_weights(values_RK: Tensor, knobs: Knobs) -> Tensor:
    """exp((logit - largest) / temperature) of sorted candidates; the first one is 1, so min-p compares directly."""
    clamped_RK = values_RK.clamp(max=_LARGEST).to(wide(values_RK.device))
    return ((clamped_RK - clamped_RK[:, :1]) / knobs.temperature_R[:, None].clamp(min=_COLDEST)).exp_()


def _weights(logits_RV: Tensor, peak_R: Tensor, knobs: Knobs, floor: bool = True) -> Tensor:
    """The same over the vocabulary in float32, padded with zeros to whole blocks; ``floor`` applies min-p."""
    rows, vocab = logits_RV.shape
    padded_RV = logits_RV.new_empty(rows, -(-vocab // _BLOCK) * _BLOCK)
    padded_RV[:, vocab:] = 0.0
    weights_RV = padded_RV[:, :vocab]
    torch.clamp(logits_RV, max=_LARGEST, out=weights_RV)
    weights_RV.sub_(peak_R.clamp(max=_LARGEST)[:, None]).div_(knobs.temperature_R[:, None].clamp(min=_COLDEST))
    torch.nn.functional.threshold(weights_RV.clamp_(min=_FAINTEST).exp_(), _FAINTEST_WEIGHT, 0.0, inplace=True)
    if floor and knobs.any_min_p:
        weights_RV.masked_fill_(weights_RV < knobs.min_p_R[:, None].to(torch.float32), 0.0)
    return padded_RV


def _first_beyond(ends_RN: Tensor, target_R1: Tensor) -> Tensor:
    """The first index whose running sum passes the target; never one of weight zero, whatever rounding did."""
    found_R1 = torch.searchsorted(ends_RN, target_R1, right=True)
    last_R1 = torch.searchsorted(ends_RN, ends_RN[:, -1:].contiguous(), right=False)
    return torch.minimum(found_R1, last_R1).clamp_(max=ends_RN.shape[1] - 1)
