# SPDX-License-Identifier: Apache-2.0
"""Routing and experts against their references, on every instruction set, in every layout that products have."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
import torch
from cpu_kit import close, matrix, native, param, run, same_as_reference
from torch import Tensor

from tramontane.ops import ClampedSwiglu, Experts, GatedActivate, Router
from tramontane.ops.pointwise import Gate
from tramontane.schemes import Affine, Codebook, Dense, Float8, Ggml, Micro, Scheme
from tramontane.weights import Matrix, Param, Part
from tramontane_backend_cpu import layouts
from tramontane_backend_cpu.kernel import Engine
from tramontane_backend_cpu.layouts import StackedStored
from tramontane_backend_cpu.library import pool
from tramontane_backend_cpu.precision import VARIABLE

EXPERTS = 6
TOKENS = (1, 2, 5, 40)
SCHEMES: tuple[Scheme, ...] = (
    Dense(torch.float32), Dense(torch.bfloat16), Dense(torch.float16), Ggml(type="q8_0"), Ggml(type="q4_0"),
    Affine(bits=4, group=32, zero="int"), Codebook(table="nf4", block=32), Micro(fmt="mxfp4"),
    Float8(fmt="e4m3", granularity="channel"), Float8(fmt="e4m3", granularity="tensor"),
)  # fmt: skip


def random(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)).to(dtype)


def stack(scheme: Scheme, sizes: Sequence[int], inputs: int, activations: torch.dtype, seed: int = 0) -> Matrix:
    """A loaded stack of matrices made of parts of these sizes."""
    parts = tuple(Part(f"part{i}", size) for i, size in enumerate(sizes))
    made = Matrix("m", parts, inputs, experts=EXPERTS, uses={"experts"})
    made.schemes = tuple(scheme for _ in sizes)
    made.stored = layouts.store(made, activations)
    assert isinstance(made.stored, StackedStored)
    for index, size in enumerate(sizes):
        weight = random(EXPERTS, size, inputs, seed=seed + index) / inputs**0.5
        fields = {"weight": weight.to(scheme.dtype)} if isinstance(scheme, Dense) else scheme.quantize(weight)
        made.stored.fill(index, fields)
        back = made.stored.unpack(index)
        assert all(torch.equal(_bits(back[name]), _bits(value)) for name, value in fields.items())
    return made


def _bits(value: Tensor) -> Tensor:
    return value.contiguous().view(torch.uint8)


def routed(tokens: int, top_k: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Weights and ids; some experts get many tokens, some none."""
    scores = random(tokens, EXPERTS, seed=seed) + torch.linspace(2, -2, EXPERTS)
    scores[:, -1] = -100
    best = scores.softmax(-1).topk(top_k)
    return best.values, best.indices.to(torch.int32)


# --- routing ----------------------------------------------------------------------------------------------------------

ROUTINGS: tuple[dict[str, Any], ...] = (
    {}, {"normalize": True}, {"scoring": "sigmoid", "normalize": True, "scale": 2.5}, {"bias": True, "normalize": True},
    {"scoring": "sigmoid", "correction": True, "groups": 4, "top_groups": 2, "group_score": "best_two"},
    {"groups": 4, "top_groups": 3, "scale": 16.0}, {"groups": 2, "top_groups": 1, "correction": True, "bias": True},
    {"scoring": "sparsemixer", "jitter": 0.01}, {"scoring": "sparsemixer", "jitter": 0.3},
)  # fmt: skip


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("options", ROUTINGS, ids=str)
def test_routing(isa: str, several: Engine, options: dict[str, Any], dtype: torch.dtype) -> None:
    op = Router(top_k=2, **options)
    for experts, inputs in ((16, 64), (20, 37)):
        weight = random(experts, inputs, dtype=dtype)
        held = [param(random(experts, seed=2 + index)) for index in range(op.bias + op.correction)]
        for stored in (weight.float(), weight):
            gate = Matrix("gate", (Part("gate", experts),), inputs, uses={"router"}, schemes=(Dense(stored.dtype),))
            gate.stored = layouts.store(gate, dtype)
            assert gate.stored is not None
            gate.stored.fill(0, {"weight": stored})
            for tokens in (1, 3, 33):
                x = random(tokens, inputs, seed=tokens, dtype=dtype)
                chosen, _ = same_as_reference(op, (gate, *held), several, (x,))  # ids are compared bit for bit
                assert chosen.isfinite().all()


@pytest.mark.parametrize("scoring", ["softmax", "sigmoid", "sparsemixer"])
def test_routing_of_what_is_no_number_names_experts_that_exist(isa: str, engine: Engine, scoring: Any) -> None:
    gate = matrix(random(8, 32), [8], torch.float32)
    x = random(3, 32)
    x[1] = torch.nan
    _, ids = run(Router(top_k=3, scoring=scoring), (gate,), engine, (x,))
    assert all(len(set(row)) == 3 and set(row) <= set(range(8)) for row in ids.tolist())


def test_routing_that_cannot_be_is_refused(engine: Engine) -> None:
    from tramontane_backend_cpu.kernels import make

    gate = matrix(random(8, 32), [8], torch.float32)
    for op in (Router(top_k=9), Router(top_k=2, groups=3), Router(top_k=2, groups=8, group_score="best_two")):
        assert isinstance(make(op, (gate,), engine), str)


# --- experts ----------------------------------------------------------------------------------------------------------

GATES: tuple[Gate, ...] = (GatedActivate("silu"), GatedActivate("gelu_tanh"), ClampedSwiglu(1.702, 0.7))


RAGGED = (37, 20, 29)
SHAPES = ((64, 32, 48), RAGGED, (16, 8, 130))
"""(inputs, features, outputs)"""


def gates_and_shapes() -> list[Any]:
    """Every gate on what fills no panel, every shape with one gate; the other pairs are for the full run."""
    pairs = [(gate, shape) for gate in GATES for shape in SHAPES]
    usual = [gate == GATES[0] or shape == RAGGED for gate, shape in pairs]
    return [
        pytest.param(*pair, id=f"{pair[0]}-{pair[1]}", marks=[] if one else [pytest.mark.full])
        for pair, one in zip(pairs, usual, strict=True)
    ]


@pytest.mark.parametrize(("gate", "shape"), gates_and_shapes())
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_experts(isa: str, several: Engine, dtype: torch.dtype, shape: tuple[int, int, int], gate: Gate) -> None:
    inputs, features, outputs = shape
    for sizes in ([features, features], [2 * features]):
        weights: list[Matrix | Param] = [
            stack(Dense(dtype), sizes, inputs, dtype), stack(Dense(dtype), [outputs], features, dtype, seed=7)
        ]  # fmt: skip
        shifts = [param(random(EXPERTS, 2 * features, dtype=dtype)), param(random(EXPERTS, outputs, dtype=dtype))]
        for tokens in TOKENS:
            inputs_all = (random(tokens, inputs, seed=tokens, dtype=dtype), *routed(tokens, 3))
            same_as_reference(Experts(outputs, gate), weights, several, inputs_all)
            same_as_reference(Experts(outputs, gate, bias=True), [*weights, *shifts], several, inputs_all)


@pytest.mark.parametrize("scheme", SCHEMES, ids=lambda s: s.name)
def test_experts_in_every_layout(isa: str, scheme: Scheme, monkeypatch: pytest.MonkeyPatch) -> None:
    engine = Engine(pool(2))
    for exact, allowed in (("0", 3e-2), ("1", 2e-5)):
        monkeypatch.setenv(VARIABLE, exact)
        gate_up, down = stack(scheme, [64, 64], 96, torch.float32), stack(scheme, [50], 64, torch.float32, seed=7)
        op = Experts(50, GatedActivate("silu"))
        for tokens in TOKENS:
            inputs = (random(tokens, 96, seed=tokens), *routed(tokens, 2))
            (ours,) = run(op, (gate_up, down), engine, inputs)
            close(ours, op.reference(None, (gate_up, down), *inputs)[0], allowed)


def test_many_tokens_go_in_slices(isa: str) -> None:
    weights = [
        stack(Dense(torch.float32), [16, 16], 32, torch.float32),
        stack(Dense(torch.float32), [32], 16, torch.float32),
    ]
    inputs = (random(2100, 32), *routed(2100, 4))
    same_as_reference(Experts(32, GatedActivate("silu")), weights, Engine(pool(3)), inputs)


def test_an_expert_that_does_not_exist_is_an_error(engine: Engine) -> None:
    weights = [
        stack(Dense(torch.float32), [16, 16], 32, torch.float32),
        stack(Dense(torch.float32), [32], 16, torch.float32),
    ]
    op = Experts(32, GatedActivate("silu"))
    shares, ids = routed(5, 2)
    for wrong in (-1, EXPERTS):
        ids[2, 1] = wrong
        with pytest.raises(IndexError):
            native(op, weights, engine)(None, (random(5, 32), shares, ids), (torch.empty(5, 32),))


@pytest.mark.parametrize("scheme", [Dense(torch.bfloat16), Ggml(type="q8_0")], ids=lambda s: s.name)
def test_results_do_not_depend_on_the_number_of_threads(isa: str, scheme: Scheme) -> None:
    weights = [stack(scheme, [96, 96], 64, torch.float32), stack(scheme, [64], 96, torch.float32, seed=7)]
    gate = matrix(random(EXPERTS, 64), [EXPERTS], torch.float32)
    for tokens in (1, 7, 100):
        x = random(tokens, 64)
        results = []
        for threads in (1, 2, 3, 4):
            engine = Engine(pool(threads))
            chosen = run(Router(top_k=3), (gate,), engine, (x,))
            results.append([*chosen, *run(Experts(64, GatedActivate("silu")), weights, engine, (x, *chosen))])
        for others in results[1:]:
            assert all(torch.equal(a, b) for a, b in zip(results[0], others, strict=True))
