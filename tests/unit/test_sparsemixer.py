# SPDX-License-Identifier: Apache-2.0
"""SparseMixer routing: experts taken one after another, each weighed against those that come near it."""

from __future__ import annotations

from math import exp

import pytest
import torch
from torch import Tensor

from tramontane.errors import PlanError
from tramontane.ops import Router


def route(logits: list[float], *, top_k: int = 2, jitter: float = 0.1) -> tuple[Tensor, Tensor]:
    weights_TK, ids_TK = Router(top_k=top_k, scoring="sparsemixer", jitter=jitter).choose(torch.tensor([logits]), None)
    return weights_TK[0], ids_TK[0]


def test_an_expert_shares_with_those_that_come_near() -> None:
    weights_K, ids_K = route([2.0, 1.9, -3.0, 0.5])
    assert ids_K.tolist() == [0, 1]
    assert weights_K.tolist() == pytest.approx([exp(2.0) / (exp(2.0) + exp(1.9)), 1.0])


def test_with_little_jitter_every_expert_stands_alone() -> None:
    weights_K, ids_K = route([2.0, 1.9, -3.0, 0.5], jitter=0.01)
    assert (ids_K.tolist(), weights_K.tolist()) == ([0, 1], [1.0, 1.0])


def test_nearness_is_relative_to_the_magnitude() -> None:
    """0.1 apart is near at 1.1 (0.09 of it), 8 apart is not at 9; and a second expert no longer sees the first."""
    weights_K, ids_K = route([-1.0, -9.0, -1.1])
    assert ids_K.tolist() == [0, 2]
    assert weights_K.tolist() == pytest.approx([exp(-1.0) / (exp(-1.0) + exp(-1.1)), 1.0])


def test_as_many_rounds_as_experts_per_token() -> None:
    assert route([1.0, 3.0, 2.0, 0.0], top_k=3)[1].tolist() == [1, 2, 0]


def test_it_goes_with_no_groups_and_no_correction() -> None:
    with pytest.raises(PlanError, match="sparsemixer"):
        Router(top_k=2, scoring="sparsemixer", correction=True)
    with pytest.raises(PlanError, match="sparsemixer"):
        Router(top_k=2, scoring="sparsemixer", groups=2)
