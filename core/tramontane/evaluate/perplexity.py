# SPDX-License-Identifier: Apache-2.0
"""Perplexity over chunks of a text, counted as llama.cpp's ``perplexity`` counts it.

The ids of the whole text are cut into chunks of one length; a rest is dropped. Every chunk is computed by itself, its
first id replaced by the beginning-of-sequence id where the model has one. Only predictions from the second half count,
so that each has at least half a chunk before it.

Legend: T tokens of a chunk, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from math import exp, sqrt

import numpy as np
import torch
from attrs import define, field, frozen
from numpy.typing import NDArray
from torch import Tensor

from tramontane.errors import RequestError


@frozen
class Perplexity:
    """A result."""

    value: float
    error: float
    """Standard error of the value."""
    tokens: int
    """Predictions that counted."""


def chunks(ids: Sequence[int], size: int, bos: int | None, limit: int | None = None) -> Iterator[list[int]]:
    """The chunks of a text's ids.

    Raises:
        RequestError: A chunk is too short to have a second half, or the text is shorter than one.
    """
    if size < 4:
        raise RequestError(f"chunks of {size} tokens are too short", hint="llama.cpp takes 512")
    count = len(ids) // size
    if not count:
        raise RequestError(f"the text has {len(ids)} tokens, fewer than one chunk of {size}", hint="lower --chunk")
    for start in range(0, min(count, limit or count) * size, size):
        chunk = list(ids[start : start + size])
        yield chunk if bos is None else [bos, *chunk[1:]]


def scored(chunk: Sequence[int], logits_TV: NDArray[np.float32]) -> tuple[Tensor, Tensor]:
    """Log-probabilities of the second half's predictions [N, V], and the ids that came [N]."""
    first = len(chunk) // 2
    logprobs = torch.from_numpy(logits_TV[first : len(chunk) - 1]).log_softmax(-1)
    return logprobs, torch.tensor(chunk[first + 1 :])


@define
class PerplexityMeter:
    """Adds up chunks."""

    _total: float = field(default=0.0, init=False)
    _squares: float = field(default=0.0, init=False)
    _count: int = field(default=0, init=False)

    def add(self, chunk: Sequence[int], logits_TV: NDArray[np.float32]) -> None:
        """Count a chunk."""
        logprobs, targets = scored(chunk, logits_TV)
        losses = -logprobs.gather(-1, targets.unsqueeze(-1)).double()
        self._total += losses.sum().item()
        self._squares += losses.square().sum().item()
        self._count += losses.numel()

    def result(self) -> Perplexity:
        """The perplexity of everything so far."""
        mean = self._total / self._count
        spread = max(0.0, self._squares / self._count - mean**2)
        value = exp(mean)
        return Perplexity(value, value * sqrt(spread / max(1, self._count - 1)), self._count)
