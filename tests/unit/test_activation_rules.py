# SPDX-License-Identifier: Apache-2.0
"""Rules for activations: rounding held against a written-out reference and compressed-tensors, products of both
backends, fused parts and experts with scales of their own, and the choice to leave activations alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from attrs import evolve
from torch import Tensor

from tramontane import ops
from tramontane.backends.base import CanonicalStored
from tramontane.backends.reference import ReferenceBackend
from tramontane.backends.torch import TorchBackend
from tramontane.errors import ConfigError, PlanError
from tramontane.load import LoadOptions, save_model
from tramontane.ops import BoundOp, Runtime
from tramontane.schemes import Act, Affine, Float8, Scheme
from tramontane.schemes.activations import rounded_activations
from tramontane.testing.checkpoints import write_random
from tramontane.testing.harness import Harness
from tramontane.testing.quantized import with_activation_rule
from tramontane.testing.samples import sample
from tramontane.weights import Matrix, Part

RULES = [
    Act("fp8", per="token"),
    Act("int8", per="token"),
    Act("fp8", per="group", group=16),
    Act("int8", per="group", group=16),
    Act("fp8", "static", "tensor"),
    Act("int8", "static", "tensor"),
]
NAMES = [f"{act.kind}-{act.scale}-{act.per}" for act in RULES]


def draw(*shape: int, seed: int = 0) -> Tensor:
    values = torch.randn(*shape, generator=torch.Generator().manual_seed(seed))
    values[0, : shape[-1] // 2] *= 20
    values[-1] = 0
    return values


def written_out(act: Act, x: Tensor, scale: float | None) -> Tensor:
    """One number after the other, in float64 but for what is stored."""
    found = torch.zeros_like(x)
    largest = 448.0 if act.kind == "fp8" else 127.5
    size = act.group or x.shape[-1]
    for t, row in enumerate(x):
        for start in range(0, len(row), size):
            group = row[start : start + size]
            step = np.float32(scale if scale is not None else float(group.abs().max()) / largest)
            for i, value in enumerate(group.tolist()):
                ratio = 0.0 if step == 0 else float(np.float32(value) / step)
                if act.kind == "int8":
                    code = min(127, max(-128, round(ratio)))
                else:
                    code = float(torch.tensor(min(448.0, max(-448.0, ratio))).to(torch.float8_e4m3fn).float())
                found[t, start + i] = code * float(step)
    return found


@pytest.mark.parametrize("act", RULES, ids=NAMES)
@pytest.mark.parametrize("inputs", [64, 40], ids=["whole", "ragged"])
def test_rounding_is_the_written_out_one(act: Act, inputs: int) -> None:
    x, scale = draw(5, inputs), 0.03 if act.scale == "static" else None
    got = rounded_activations(act, x, None if scale is None else torch.tensor(scale))
    torch.testing.assert_close(got, written_out(act, x, scale), rtol=1e-6, atol=1e-7)
    assert not torch.equal(got, x)
    assert got[-1].eq(0).all()


@pytest.mark.parametrize("act", RULES, ids=NAMES)
def test_rounding_is_that_of_compressed_tensors(act: Act) -> None:
    quantization = pytest.importorskip("compressed_tensors.quantization", reason="compressed-tensors is not installed")
    lifecycle = pytest.importorskip("compressed_tensors.quantization.lifecycle.forward")
    helpers = pytest.importorskip("compressed_tensors.quantization.utils")
    x, dynamic = draw(5, 64), act.scale == "dynamic"
    batch = x if act.per == "group" else x.unsqueeze(0)  # tokens are counted in the second dimension
    args = quantization.QuantizationArgs(
        num_bits=8, type="float" if act.kind == "fp8" else "int", symmetric=True, strategy=act.per,
        group_size=act.group or None, dynamic=dynamic,
    )  # fmt: skip
    scale, zero = torch.tensor([0.03]), torch.tensor([0.0])
    if dynamic:
        scale, zero = helpers.compute_dynamic_scales_and_zp(batch, args, torch.nn.Linear(64, 1))
    expected = lifecycle.fake_quantize(batch, scale, zero, args)
    torch.testing.assert_close(rounded_activations(act, x, scale if not dynamic else None), expected.reshape(x.shape))


def test_a_scale_of_the_whole_step_would_mix_requests() -> None:
    act, x = Act("int8", per="tensor"), draw(4, 32)
    alone = torch.cat([rounded_activations(act, row.unsqueeze(0)) for row in x])
    assert torch.equal(rounded_activations(act, x), alone)


def test_a_static_rule_needs_its_scale() -> None:
    with pytest.raises(PlanError, match="needs its scale"):
        rounded_activations(RULES[-1], draw(2, 8))


# --- products ---------------------------------------------------------------------------------------------------------


def matrix(schemes: list[Scheme], sizes: list[int], inputs: int, experts: int | None = None) -> Matrix:
    """A stored matrix; static scales are 0.02, 0.03 ... part by part (and expert by expert)."""
    parts = tuple(Part(f"p{index}", size) for index, size in enumerate(sizes))
    made = Matrix("m", parts, inputs, experts=experts, schemes=tuple(schemes))
    made.stored = stored = CanonicalStored(made, torch.float32, torch.device("cpu"))
    stack = () if experts is None else (experts,)
    for index, (scheme, size) in enumerate(zip(schemes, sizes, strict=True)):
        weight = torch.randn(*stack, size, inputs, generator=torch.Generator().manual_seed(index)) / 8
        fields = scheme.plain().quantize(weight)
        if "act_scale" in scheme.fields((*stack, size, inputs)):
            fields["act_scale"] = (torch.arange(experts or 1) + index + 2).float().reshape(stack) / 100
        stored.fill(index, fields)
    return made


def expected_product(x: Tensor, made: Matrix, expert: int | None = None) -> Tensor:
    pieces = []
    for index, scheme in enumerate(made.schemes):
        fields = made.storage().unpack(index)
        fields = fields if expert is None else {name: one[expert] for name, one in fields.items()}
        weight = scheme.dequantize(fields, (made.parts[index].out_features, made.in_features))
        scale = fields.get("act_scale")
        seen = x if scheme.act.kind == "none" else written_out(scheme.act, x, None if scale is None else float(scale))
        pieces.append(seen @ weight.T)
    return torch.cat(pieces, -1)


FUSED: list[list[Scheme]] = [
    [Float8(granularity="channel", act=RULES[0])] * 3,
    [Affine(bits=8, group=0, act=RULES[1]), Affine(bits=8, group=0), Affine(bits=8, group=0, act=RULES[1])],
    [Float8(act=RULES[4])] * 3,
    [Float8(granularity="block", block=(8, 16), act=RULES[2])] * 3,
]


@pytest.mark.parametrize("backend", [TorchBackend, ReferenceBackend], ids=["torch", "reference"])
@pytest.mark.parametrize("schemes", FUSED, ids=["equal", "mixed", "static", "groups"])
@pytest.mark.parametrize("bias", [False, True], ids=["plain", "bias"])
def test_products_see_rounded_activations(backend: Any, schemes: list[Scheme], bias: bool) -> None:
    made, x = matrix(schemes, [16, 8, 24], 48), draw(5, 48)
    weights: tuple[Any, ...] = (made,)
    expected = expected_product(x, made)
    if bias:
        shift = torch.randn(48, generator=torch.Generator().manual_seed(9))
        weights, expected = (made, _Vector(shift)), expected + shift
    bound = BoundOp(ops.Linear(48, bias=bias), weights, Runtime(torch.device("cpu")))
    bound.bind(backend().candidates(bound.op))
    got = bound(x)
    torch.testing.assert_close(got, expected, rtol=1e-5, atol=1e-5)
    assert not torch.allclose(
        got, expected_product(x, _exact(made)) + (expected - expected_product(x, made)), atol=1e-4
    )


class _Vector:
    """A loaded bias."""

    def __init__(self, tensor: Tensor) -> None:
        self.tensor = tensor


def _exact(made: Matrix) -> Matrix:
    return evolve(made, schemes=tuple(scheme.plain() for scheme in made.schemes))


@pytest.mark.parametrize("backend", [TorchBackend, ReferenceBackend], ids=["torch", "reference"])
def test_experts_see_rounded_activations_under_their_own_scales(backend: Any) -> None:
    scheme, experts, hidden, wide = Float8(act=RULES[4]), 3, 16, 32
    gate_up = matrix([scheme, scheme], [wide, wide], hidden, experts)
    down = matrix([scheme], [hidden], wide, experts)
    op = ops.Experts(hidden, ops.GatedActivate("silu"))
    bound = BoundOp(op, (gate_up, down), Runtime(torch.device("cpu")))
    bound.bind(backend().candidates(op))
    x = draw(6, hidden)
    ids = torch.tensor([[0, 1], [1, 2], [0, 2], [2, 1], [1, 0], [0, 1]], dtype=torch.int32)
    share = torch.full((6, 2), 0.5)
    expected = torch.zeros(6, hidden)
    for token in range(6):
        for expert in ids[token].tolist():
            gate, up = expected_product(x[token : token + 1], gate_up, expert).chunk(2, -1)
            between = torch.nn.functional.silu(gate) * up
            expected[token] += 0.5 * expected_product(between, down, expert)[0]
    torch.testing.assert_close(bound(x, share, ids), expected, rtol=1e-4, atol=1e-4)


# --- whole models -----------------------------------------------------------------------------------------------------


def test_a_checkpoint_s_rules_are_followed_or_left_alone(tmp_path: Path) -> None:
    """A model whose matrices are e4m3 per output, saved with a rule for activations and without."""
    pytest.importorskip("tramontane_arch_llama", reason="needs the llama architecture plugin")
    source = write_random(tmp_path / "source", sample("LlamaForCausalLM", "llama", num_hidden_layers=2))
    save_model(str(source), tmp_path / "saved", LoadOptions(backend="torch", dtype="float32", quant="fp8"))
    ruled = with_activation_rule(tmp_path / "saved", RULES[0])
    prompt = [3, 17, 42, 8]
    for backend in ("torch", "reference"):
        plain = Harness.load(tmp_path / "saved", backend=backend, dtype="float32", activations="exact")
        exact = Harness.load(ruled, backend=backend, dtype="float32", activations="exact")
        stored = Harness.load(ruled, backend=backend, dtype="float32")
        assert np.array_equal(plain.logits(prompt), exact.logits(prompt))
        apart = np.abs(stored.logits(prompt) - exact.logits(prompt)).max() / np.abs(exact.logits(prompt)).max()
        assert 1e-4 < apart < 0.2
    with pytest.raises(ConfigError, match="no rule 'half' for activations"):
        Harness.load(ruled, backend="torch", activations="half")
