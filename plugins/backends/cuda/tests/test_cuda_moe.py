# SPDX-License-Identifier: Apache-2.0
"""Routing and experts against the references, by Triton's interpreter."""

from __future__ import annotations

from typing import Any

import pytest

pytest.importorskip("triton", reason="triton has packages for Linux only")

import torch
from cuda_kit import HERE, close, draw, exact_weight, matrix, param, run
from torch import Tensor

from tramontane.ops import ClampedSwiglu, Experts, GatedActivate, Router
from tramontane.ops.pointwise import Gate
from tramontane.schemes import Act, Affine, Dense, Float8, Ggml, Micro, Scheme
from tramontane.weights import Matrix
from tramontane_backend_cuda import experts as experts_ops

ROUTERS: list[dict[str, Any]] = [
    {"top_k": 2},
    {"top_k": 3, "normalize": True, "scale": 2.5, "bias": True},
    {"top_k": 1, "scoring": "sigmoid"},
    {"top_k": 4, "scoring": "sigmoid", "correction": True, "groups": 4, "top_groups": 2, "group_score": "best_two"},
    {"top_k": 3, "groups": 3, "top_groups": 2, "bias": True, "correction": True, "normalize": True},
    {"top_k": 2, "scoring": "sparsemixer", "jitter": 0.01},
]


@pytest.mark.parametrize("options", ROUTERS, ids=str)
def test_routers(options: dict[str, Any]) -> None:
    op, experts = Router(**options), 12
    for dtype, counts in ((torch.float32, (1, 6)), (torch.bfloat16, (2, 70) if op.top_k == 1 else (2,))):
        weight = matrix([Dense(dtype)], [experts], 40, dtype, uses={"router"})
        extra = [param(draw(experts, seed=3))] * op.bias + [param(draw(experts, seed=4))] * op.correction
        for tokens in counts:
            x = draw(tokens, 40, dtype=dtype, seed=tokens)
            weights, ids = run(op, (weight, *extra), x)
            wanted, chosen = op.reference(None, (weight, *extra), x)
            assert torch.equal(ids, chosen)
            close(weights, wanted)


def test_equal_scores_go_to_the_first_expert() -> None:
    weight = matrix([Dense(torch.float32)], [6], 8, torch.float32, uses={"router"})
    _, ids = run(Router(top_k=3), (weight,), torch.zeros(2, 8))
    assert ids.tolist() == [[0, 1, 2]] * 2


def exact(op: Experts, up: Matrix, down: Matrix, biases: list[Tensor], *inputs: Tensor) -> Tensor:
    """Pair by pair, in float64."""
    x_TD, weights_TK, ids_TK = inputs
    both, last = exact_weight(up), exact_weight(down)
    made = torch.zeros(x_TD.shape[0], op.features, dtype=torch.float64)
    for token, ids in enumerate(ids_TK.tolist()):
        for place, expert in enumerate(ids):
            middle = both[expert] @ x_TD[token].double()
            if biases:
                middle = middle + biases[0][expert].double()
            (h,) = op.gate.reference(None, (), middle)
            each = last[expert] @ h + (biases[1][expert].double() if biases else 0)
            made[token] += weights_TK[token, place].double() * each
    return made


def routed(tokens: int, top_k: int, experts: int) -> tuple[Tensor, Tensor]:
    """Weights and ids; some experts get no token, one gets many."""
    drawn = torch.rand(tokens, experts - 1, generator=torch.Generator().manual_seed(1), device="cpu")
    ids = drawn.to(HERE).argsort(-1)[:, :top_k]
    ids[:, 0] = torch.where(torch.arange(tokens) % 2 == 0, experts - 1, ids[:, 0])
    weights = torch.rand(tokens, top_k, generator=torch.Generator().manual_seed(2), device="cpu")
    return weights.to(HERE), ids.to(torch.int32)


@pytest.mark.parametrize(
    ("scheme", "gate", "bias"),
    [
        (Dense(torch.float32), GatedActivate("silu"), False),
        (Affine(bits=4, group=32, zero="int"), GatedActivate("gelu_tanh"), True),
        (Micro("mxfp4"), ClampedSwiglu(1.7, 7.0), True),
        (Float8(granularity="block", block=(8, 32)), GatedActivate("silu"), False),
        pytest.param(Ggml("q4_0"), GatedActivate("silu"), False, marks=pytest.mark.full),
    ],
    ids=lambda x: getattr(x, "name", str(x)),
)
def test_experts(scheme: Scheme, gate: Gate, bias: bool) -> None:
    up = matrix([scheme] * 2, [32, 32], 64, torch.float32, experts=4)
    down = matrix([scheme], [64], 32, torch.float32, experts=4)
    biases = [draw(4, 64, seed=8), draw(4, 64, seed=9)] if bias else []
    op = Experts(64, gate, bias)
    for tokens in (1, 7):
        x, (weights, ids) = draw(tokens, 64), routed(tokens, 2, 4)
        given = (x, weights, ids)
        (y,) = run(op, (up, down, *map(param, biases)), *given)
        close(y, exact(op, up, down, biases, *given))


def test_experts_in_bfloat16_and_in_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(experts_ops, "MAX_PAIRS", 10)
    scheme, op = Dense(torch.bfloat16), Experts(64, GatedActivate("silu"))
    up = matrix([scheme], [64], 64, torch.bfloat16, experts=4)
    down = matrix([scheme], [64], 32, torch.bfloat16, experts=4)
    given = (draw(7, 64, dtype=torch.bfloat16), *routed(7, 2, 4))
    (y,) = run(op, (up, down), *given)
    close(y, exact(op, up, down, [], *given), 4e-2)  # what lies between is rounded too
    assert torch.equal(y, run(op, (up, down), *given)[0])
    alone = [one[6:] for one in given]  # the last of the second piece
    close(run(op, (up, down), *alone)[0], y[6:], 4e-2)


def test_rules_for_activations_of_experts() -> None:
    scheme, op = Float8(granularity="channel", act=Act("fp8")), Experts(64, GatedActivate("silu"))
    up = matrix([scheme] * 2, [32, 32], 64, torch.float32, experts=3)
    down = matrix([scheme], [64], 32, torch.float32, experts=3)
    for tokens in (2, 9):
        given = (draw(tokens, 64), *routed(tokens, 2, 3))
        (y,) = run(op, (up, down), *given)
        close(y, op.reference(None, (up, down), *given)[0], 1e-3)
