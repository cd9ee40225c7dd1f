# SPDX-License-Identifier: Apache-2.0
"""Changes to logits that depend on what was said before, for all rows of a step at once.

* Repetition (Keskar et al., "CTRL", 2019): a token of the prompt or the output has a positive logit divided, a negative
  one multiplied.
* Frequency and presence (OpenAI): subtracted per occurrence, and once, for tokens of the output.
* DRY (p-e-w, text-generation-webui pull request 5677): a token that would extend a repeated sequence is penalized by
  ``multiplier * base ** (length of the repeated sequence - allowed length)``.

Logits are changed in place. Rows that do not want a penalty come with its neutral value. Shapes as in
:mod:`tramontane.sampler.history`.
"""

from __future__ import annotations

import torch
from attrs import frozen
from torch import Tensor

from tramontane.sampler.history import Past

_LONGEST_MATCH = 50
"""p-e-w's limit; longer matches are no more forbidden than these."""
_LARGEST_PENALTY = 1e30


@frozen
class Repeats:
    """Penalties on single tokens, one value a row, float32 [R, 1]."""

    repetition_R1: Tensor
    frequency_R1: Tensor
    presence_R1: Tensor


@frozen
class Dry:
    """DRY's parameters, one value a row, [R, 1]."""

    multiplier_R1: Tensor
    """float32; 0 is off."""
    base_R1: Tensor
    allowed_R1: Tensor
    """int64."""
    breakers_BV: Tensor
    """bool, a table a set of breakers: tokens that a repeated sequence cannot reach across."""
    table_R1: Tensor
    """int64: the table of each row."""


def apply_repeats(logits_RV: Tensor, past: Past, repeats: Repeats) -> None:
    """Repetition, then frequency and presence."""
    counts_RV = torch.zeros_like(logits_RV)
    counts_RV.scatter_add_(1, past.ids_RC, past.output_RC.to(counts_RV.dtype))
    counts_RC = counts_RV.gather(1, past.ids_RC)
    seen_RC = logits_RV.gather(1, past.ids_RC)
    seen_RC = torch.where(seen_RC > 0, seen_RC / repeats.repetition_R1, seen_RC * repeats.repetition_R1)
    seen_RC -= counts_RC * repeats.frequency_R1 + (counts_RC > 0) * repeats.presence_R1
    # Columns of the same token carry the same value, so it does not matter which of them is written last.
    logits_RV.scatter_(1, past.ids_RC, seen_RC)


def apply_dry(logits_RV: Tensor, past: Past, dry: Dry) -> None:
    """Penalize the tokens that followed earlier occurrences of how the history ends."""
    width = past.ids_RC.shape[1]
    if width < 2:
        return
    # Align the rows at their ends: column -1 is the last token, -1 marks what lies before the first.
    column_RC = past.length_R1 - width + torch.arange(width, device=logits_RV.device)
    aligned_RC = torch.where(column_RC >= 0, past.ids_RC.gather(1, column_RC.clamp(min=0)), -1)
    breaks_RC = dry.breakers_BV[dry.table_R1, aligned_RC.clamp(min=0)] & (column_RC >= 0)
    length_RC = _match_lengths(aligned_RC, breaks_RC)
    follow_RC = aligned_RC[:, 1:].clamp(min=0)
    exponent_RC = length_RC - dry.allowed_R1
    penalty_RC = dry.multiplier_R1 * dry.base_R1 ** exponent_RC.clamp(min=0)
    wanted_RC = (length_RC > 0) & (exponent_RC >= 0) & ~breaks_RC[:, 1:] & (dry.multiplier_R1 > 0)
    penalty_RC = torch.where(wanted_RC, penalty_RC.clamp(max=_LARGEST_PENALTY), 0.0)
    worst_RV = torch.zeros_like(logits_RV).scatter_reduce_(1, follow_RC, penalty_RC, "amax")
    logits_RV.scatter_(1, follow_RC, logits_RV.gather(1, follow_RC) - worst_RV.gather(1, follow_RC))


def _match_lengths(aligned_RC: Tensor, breaks_RC: Tensor) -> Tensor:
    """For each earlier column, how many tokens up to it equal the end of the history: int64 [R, C - 1].

    A match ends at a breaker, at the start of the history and at :data:`_LONGEST_MATCH`.
    """
    width = aligned_RC.shape[1]
    alive_RC = (aligned_RC[:, :-1] == aligned_RC[:, -1:]) & ~breaks_RC[:, -1:]
    length_RC = alive_RC.to(torch.int64)
    on_host = aligned_RC.device.type == "cpu"
    for back in range(1, min(_LONGEST_MATCH, width - 1)):
        if on_host and not bool(alive_RC.any()):
            break  # a device is not asked: waiting for its answer costs more than the remaining rounds
        wanted_R1 = aligned_RC[:, width - 1 - back, None]
        same_RC = (aligned_RC[:, : width - 1 - back] == wanted_R1) & ~breaks_RC[:, width - 1 - back, None]
        same_RC &= wanted_R1 >= 0
        alive_RC[:, :back] = False
        alive_RC[:, back:] &= same_RC
        length_RC += alive_RC
    return length_RC
