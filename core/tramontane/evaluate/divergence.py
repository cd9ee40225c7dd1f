# SPDX-License-Identifier: Apache-2.0
"""Kullback-Leibler divergence of a model's predictions from those of a base model, token by token of the same text."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from attrs import define, field, frozen
from numpy.typing import NDArray
from torch import Tensor

from tramontane.errors import RequestError
from tramontane.evaluate.perplexity import scored


@frozen
class Divergence:
    """How far the model is from the base; divergences in nats."""

    mean: float
    median: float
    high: float
    """99 % of the tokens are below."""
    largest: float
    same_top: float
    """Share of tokens whose most likely successor is the same."""


@define
class DivergenceMeter:
    """Collects chunks."""

    _found: list[Tensor] = field(factory=list, init=False, repr=False)
    _same: int = field(default=0, init=False)

    def add(self, chunk: Sequence[int], base_TV: NDArray[np.float32], model_TV: NDArray[np.float32]) -> None:
        """Count a chunk that both have computed.

        Raises:
            RequestError: The two models have different vocabularies.
        """
        if base_TV.shape != model_TV.shape:
            raise RequestError(
                f"the base predicts {base_TV.shape[1]} tokens and the model {model_TV.shape[1]}: "
                "they have different vocabularies"
            )
        base, _ = scored(chunk, base_TV)
        model, _ = scored(chunk, model_TV)
        self._found.append((base.exp() * (base - model)).double().sum(-1).clamp(min=0))
        self._same += int((base.argmax(-1) == model.argmax(-1)).sum())

    def result(self) -> Divergence:
        """Everything so far."""
        every = torch.cat(self._found).sort().values
        at = {share: every[min(len(every) - 1, int(share * len(every)))].item() for share in (0.5, 0.99)}
        return Divergence(every.mean().item(), at[0.5], at[0.99], every[-1].item(), self._same / len(every))
