# SPDX-License-Identifier: Apache-2.0
"""Routing and experts: the rules of the published routers, and kernels against the ops' own definitions."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from attrs import define
from torch import Tensor

from tramontane.backends.base import CanonicalStored, DenseStored
from tramontane.backends.torch import experts as torch_experts
from tramontane.backends.torch.experts import experts as experts_kernel
from tramontane.backends.torch.experts import router as router_kernel
from tramontane.errors import PlanError
from tramontane.ops import ClampedSwiglu, Experts, GatedActivate, Router, reference_kernel
from tramontane.schemes import Dense, Micro
from tramontane.weights import Matrix, Part

T, D, F, X = 13, 32, 24, 8
ROUTERS = {
    "mixtral": Router(top_k=2, normalize=True),
    "qwen": Router(top_k=3),
    "gpt-oss": Router(top_k=2, normalize=True, bias=True),
    "deepseek-v2": Router(top_k=3, groups=4, top_groups=2, scale=16.0),
    "deepseek-v3": Router(
        top_k=3,
        scoring="sigmoid",
        normalize=True,
        correction=True,
        groups=4,
        top_groups=2,
        group_score="best_two",
        scale=2.5,
    ),
}


@define
class Vector:
    tensor: Tensor


def matrix(*shape: int, parts: int = 1, seed: int = 0) -> Matrix:
    """A dense stack of random matrices [X, O, I], or one matrix [O, I]."""
    generator = torch.Generator().manual_seed(seed)
    size = shape[-2] // parts
    made = Matrix(
        "m", tuple(Part(f"m{i}", size) for i in range(parts)), shape[-1], experts=shape[0] if len(shape) == 3 else None
    )
    made.schemes = (Dense(torch.float32),) * parts
    stored = DenseStored(made, torch.float32, torch.device("cpu"))
    for part in range(parts):
        values = torch.randn((*shape[:-2], size, shape[-1]), generator=generator) * shape[-1] ** -0.5
        stored.fill(part, {"weight": values})
    made.stored = stored
    return made


def vector(*shape: int, seed: int) -> Vector:
    return Vector(torch.randn(shape, generator=torch.Generator().manual_seed(seed)) * 0.3)


def routing_weights(op: Router) -> list[Any]:
    found: list[Any] = [matrix(X, D)]
    return found + [vector(X, seed=5)] * op.bias + [vector(X, seed=6)] * op.correction


def inputs(seed: int = 1) -> Tensor:
    return torch.randn(T, D, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("op", ROUTERS.values(), ids=ROUTERS)
def test_the_torch_router_follows_the_definition(op: Router) -> None:
    weights, x_TD = routing_weights(op), inputs()
    (wanted_TK, ids_TK), found = op.reference(None, weights, x_TD), []
    for shape, dtype in op.outputs(weights, x_TD):
        found.append(torch.empty(shape, dtype=dtype))
    kernel = router_kernel(op, weights)
    assert callable(kernel)
    kernel(None, [x_TD], found)
    assert torch.equal(found[1], ids_TK)
    torch.testing.assert_close(found[0], wanted_TK)


def test_a_normalized_softmax_is_a_softmax_over_the_chosen() -> None:
    weights, x_TD = routing_weights(ROUTERS["gpt-oss"]), inputs()
    logits_TX = x_TD @ weights[0].dequantize().T + weights[1].tensor
    best = logits_TX.topk(2)
    found_TK, ids_TK = ROUTERS["gpt-oss"].reference(None, weights, x_TD)
    assert torch.equal(ids_TK, best.indices.to(torch.int32))
    torch.testing.assert_close(found_TK, best.values.softmax(-1))


@pytest.mark.parametrize("name", ["deepseek-v2", "deepseek-v3"])
def test_experts_come_from_the_best_groups(name: str) -> None:
    op = ROUTERS[name]
    weights, x_TD = routing_weights(op), inputs()
    logits_TX = x_TD @ weights[0].dequantize().T
    scores_TX = logits_TX.softmax(-1) if name == "deepseek-v2" else logits_TX.sigmoid() + weights[1].tensor
    each = scores_TX.view(T, 4, 2)
    groups = (each.amax(-1) if name == "deepseek-v2" else each.sum(-1)).topk(2).indices
    _, ids_TK = op.reference(None, weights, x_TD)
    for token in range(T):
        assert set((ids_TK[token] // 2).tolist()) <= set(groups[token].tolist())
    free_TK = Router(top_k=op.top_k, scoring=op.scoring, correction=op.correction).reference(None, weights, x_TD)[1]
    assert not torch.equal(ids_TK, free_TK), "without groups the choice is another, or this proves nothing"


def test_a_correction_moves_the_choice_and_not_the_weights() -> None:
    op = Router(top_k=1, scoring="sigmoid", correction=True)
    gate, x_TD = matrix(X, D), inputs()
    push = Vector(torch.zeros(X))
    push.tensor[3] = 10.0
    weights_TK, ids_TK = op.reference(None, [gate, push], x_TD)
    assert ids_TK.unique().tolist() == [3]
    torch.testing.assert_close(weights_TK[:, 0], (x_TD @ gate.dequantize().T).sigmoid()[:, 3])


def test_scores_that_underflow_give_no_nan() -> None:
    op = Router(top_k=2, scoring="sigmoid", normalize=True)
    weights_TK, _ = op.choose(torch.full((1, X), -200.0), None)
    assert weights_TK.isfinite().all()


def test_impossible_routing_is_refused() -> None:
    with pytest.raises(PlanError, match="no such routing"):
        Router(top_k=2, groups=2, top_groups=3)


# --- experts ----------------------------------------------------------------------------------------------------------


def run(op: Experts, weights: list[Any], given: list[Tensor]) -> Tensor:
    out = torch.empty(T, D)
    kernel = experts_kernel(op, weights)
    assert callable(kernel)
    kernel(None, given, [out])
    return out


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("gate", [GatedActivate("silu"), ClampedSwiglu(alpha=1.7, limit=0.5)])
def test_grouped_experts_follow_the_definition(gate: Any, bias: bool) -> None:
    op = Experts(D, gate, bias=bias)
    weights: list[Any] = [matrix(X, 2 * F, D, parts=2, seed=2), matrix(X, D, F, seed=3)]
    weights += [vector(X, 2 * F, seed=7), vector(X, D, seed=8)] if bias else []
    chosen = Router(top_k=3).reference(None, routing_weights(Router(top_k=3)), inputs())
    given = [inputs(), *chosen]
    (wanted,) = op.reference(None, weights, *given)
    torch.testing.assert_close(run(op, weights, given), wanted, atol=1e-5, rtol=1e-5)


def test_many_tokens_are_taken_in_slices(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch_experts, "MAX_PAIRS", 7)
    op, weights = Experts(D, GatedActivate("silu")), [matrix(X, 2 * F, D, parts=2), matrix(X, D, F)]
    given = [inputs(), *Router(top_k=3).reference(None, [matrix(X, D)], inputs())]
    torch.testing.assert_close(run(op, weights, given), op.reference(None, weights, *given)[0], atol=1e-5, rtol=1e-5)


def test_one_expert_of_weight_one_is_a_plain_layer() -> None:
    op, gate_up, down = Experts(D, GatedActivate("silu")), matrix(X, 2 * F, D, parts=2), matrix(X, D, F)
    x_TD = inputs()
    ones, fives = torch.ones(T, 1), torch.full((T, 1), 5, dtype=torch.int32)
    gate, up = (x_TD @ gate_up.expert(5).T).chunk(2, -1)
    wanted = (torch.nn.functional.silu(gate) * up) @ down.expert(5).T
    (found,) = op.reference(None, [gate_up, down], x_TD, ones, fives)
    torch.testing.assert_close(found, wanted)


def test_an_expert_that_nobody_asks_for_is_not_touched() -> None:
    op, gate_up, down = Experts(D, GatedActivate("silu")), matrix(X, 2 * F, D, parts=2), matrix(X, D, F)
    for piece in gate_up.stored.pieces:  # type: ignore[union-attr]
        piece[1] = float("nan")
    ids = torch.tensor([0, 2, 7, 3] * T, dtype=torch.int32)[: 2 * T].view(T, 2)
    given = [inputs(), torch.rand(T, 2), ids]
    for kernel in (run(op, [gate_up, down], given), op.reference(None, [gate_up, down], *given)[0]):
        assert kernel.isfinite().all()


def test_experts_of_any_scheme_run_one_at_a_time() -> None:
    scheme, shape = Micro("mxfp4"), (X, D, 64)
    down = Matrix("m", (Part("m", D),), 64, experts=X, schemes=(scheme,))
    values = torch.randn(shape, generator=torch.Generator().manual_seed(9))
    fields = scheme.quantize(values)
    stored = CanonicalStored(down, torch.float32, torch.device("cpu"))
    stored.fill(0, fields)
    down.stored = stored
    torch.testing.assert_close(down.expert(3), scheme.dequantize(fields, shape)[3])
    op, gate_up = Experts(D, GatedActivate("silu")), matrix(X, 128, D, parts=2)
    given = [inputs(), torch.rand(T, 2), torch.randint(0, X, (T, 2), dtype=torch.int32)]
    (wanted,) = op.reference(None, [gate_up, down], *given)
    torch.testing.assert_close(run(op, [gate_up, down], given), wanted, atol=1e-5, rtol=1e-5)


def test_experts_can_be_differentiated() -> None:
    """The reference is what training and importance scores go through."""
    op, weights = Experts(D, GatedActivate("silu")), [matrix(X, 2 * F, D, parts=2), matrix(X, D, F)]
    x_TD = inputs().requires_grad_()
    chosen, ids = Router(top_k=2).reference(None, [matrix(X, D)], x_TD)
    op.reference(None, weights, x_TD, chosen, ids)[0].sum().backward()
    assert x_TD.grad is not None
    assert x_TD.grad.abs().sum() > 0


def test_no_tokens_are_no_fault() -> None:
    op, weights = Experts(D, GatedActivate("silu")), [matrix(X, 2 * F, D, parts=2), matrix(X, D, F)]
    given = [torch.empty(0, D), torch.empty(0, 2), torch.empty(0, 2, dtype=torch.int32)]
    out = torch.empty(0, D)
    for make in (experts_kernel, reference_kernel):
        kernel = make(op, weights)
        assert callable(kernel)
        kernel(None, given, [out])
