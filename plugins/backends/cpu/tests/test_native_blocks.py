# SPDX-License-Identifier: Apache-2.0
"""Quantized weights in the block layout: exact there and back, and products against what the schemes define."""

from __future__ import annotations

from collections.abc import Mapping

import pytest
import torch
from cpu_kit import close, param, run
from torch import Tensor

from tramontane.ops import Embed, GatedActivate, Linear, LinearGated
from tramontane.schemes import Affine, Codebook, Dense, Float8, Ggml, Micro, Scheme
from tramontane.weights import Matrix, Part
from tramontane_backend_cpu import layouts
from tramontane_backend_cpu.kernel import Engine
from tramontane_backend_cpu.layouts.blocks import BlockPart
from tramontane_backend_cpu.library import pool
from tramontane_backend_cpu.precision import VARIABLE

GGML: Mapping[str, tuple[int, int]] = {
    "q8_0": (32, 1), "q4_0": (32, 1), "q4_1": (32, 2), "q5_0": (32, 1), "q5_1": (32, 2), "q4_k": (256, 2),
    "q5_k": (256, 2), "q6_k": (256, 1),
}  # fmt: skip
"""Type -> (inputs of a block, float16 factors in it)."""
_FACTORS_AT = {"q6_k": 208}
SCHEMES: tuple[Scheme, ...] = (
    *(Ggml(type=name) for name in GGML),
    Affine(bits=4, group=32), Affine(bits=8, group=64, scale_dtype=torch.float32),
    Affine(bits=4, group=128, zero="int"), Affine(bits=8, group=32, zero="int"), Affine(bits=8, group=0),
    Affine(bits=4, group=64, zero="float"), Affine(bits=8, group=128, zero="float", scale_dtype=torch.bfloat16),
    Affine(bits=4, group=32, zero="offset"), Affine(bits=8, group=64, zero="offset", scale_dtype=torch.bfloat16),
    Affine(bits=1, group=32), Affine(bits=2, group=64, zero="int"), Affine(bits=3, group=32, zero="offset"),
    Affine(bits=5, group=32), Affine(bits=6, group=64, zero="float"), Affine(bits=7, group=0, zero="int"),
    Codebook(table="nf4", block=64), Codebook(table="fp4", block=32, scale_dtype=torch.float16),
    Micro(fmt="mxfp4"),
    Float8(fmt="e4m3", granularity="tensor"), Float8(fmt="e5m2", granularity="channel"),
    Float8(fmt="e4m3", granularity="block", block=(24, 64)),
)  # fmt: skip
ROUNDED = 2e-2
"""Error of products whose activations are rounded to 255 steps per 32 inputs, relative to the largest result."""


def fields_of(scheme: Scheme, outputs: int, inputs: int, seed: int = 0) -> dict[str, Tensor]:
    """Random fields: every bit of the codes in use, scales of a sensible size."""
    generator = torch.Generator().manual_seed(seed)
    if not isinstance(scheme, Ggml):
        weight = torch.randn(outputs, inputs, generator=generator)
        weight[:, ::5] *= 3
        return scheme.quantize(weight)
    block, factors = GGML[scheme.name]
    blocks = torch.randint(0, 256, (outputs * inputs // block, scheme.type.nbytes), generator=generator).to(torch.uint8)
    at = _FACTORS_AT.get(scheme.name, 0)
    made = (torch.rand(len(blocks), factors, generator=generator) - 0.3).mul(0.05).to(torch.float16)
    blocks[:, at : at + 2 * factors] = made.view(torch.uint8)
    return {"weight": blocks.reshape(outputs, -1)}


def shapes(scheme: Scheme) -> tuple[tuple[int, int], ...]:
    """(outputs, inputs): whole panels, and ragged ones."""
    if isinstance(scheme, Ggml):
        block = GGML[scheme.name][0]
        return (32, 2 * block), (45, 3 * block)
    return (32, 256), (45, 331), (7, 30)


def stored(
    scheme: Scheme, sizes: tuple[int, ...], inputs: int, activations: torch.dtype = torch.float32
) -> tuple[Matrix, Tensor, list[dict[str, Tensor]]]:
    """A matrix of parts in one scheme, its values, its fields."""
    made = Matrix("m", tuple(Part(f"part{i}", size) for i, size in enumerate(sizes)), inputs, uses={"linear", "rows"})
    made.schemes = tuple(scheme for _ in sizes)
    made.stored = layouts.store(made, activations)
    assert made.stored is not None
    assert made.stored.layout == "blocks"
    fields = [fields_of(scheme, size, inputs, seed) for seed, size in enumerate(sizes)]
    for index, one in enumerate(fields):
        made.stored.fill(index, one)
    values = [scheme.dequantize(one, (size, inputs)) for one, size in zip(fields, sizes, strict=True)]
    return made, torch.cat(values), fields


def random(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)).to(dtype)


@pytest.mark.parametrize("scheme", SCHEMES, ids=lambda s: f"{s.name}-{getattr(s, 'zero', '')}")
def test_weights_come_back_bit_for_bit(isa: str, scheme: Scheme) -> None:
    for outputs, inputs in shapes(scheme):
        matrix, values, (fields,) = stored(scheme, (outputs,), inputs)
        assert matrix.stored is not None
        back = matrix.stored.unpack(0)
        assert back.keys() == fields.keys()
        for name, wanted in fields.items():
            assert back[name].dtype is wanted.dtype
            assert torch.equal(_bits(back[name]), _bits(wanted)), name
        assert torch.equal(matrix.dequantize(), values)
        ids = torch.tensor([outputs - 1, 0, 3])
        assert torch.equal(matrix.rows(ids), values[ids])
        assert torch.equal(run(Embed(inputs, torch.float32), (matrix,), Engine(pool(2)), (ids,))[0], values[ids])


def _bits(value: Tensor) -> Tensor:
    return value.contiguous().view(torch.uint8) if value.dim() else value


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("scheme", SCHEMES, ids=lambda s: f"{s.name}-{getattr(s, 'zero', '')}")
def test_products(isa: str, several: Engine, scheme: Scheme, dtype: torch.dtype) -> None:
    for outputs, inputs in shapes(scheme):
        matrix, values, _ = stored(scheme, (outputs,), inputs, dtype)
        for rows in (1, 2, 3, 4, 7, 40):
            x = random(rows, inputs, seed=rows, dtype=dtype)
            (ours,) = run(Linear(outputs), (matrix,), several, (x,))
            close(ours, (x.float() @ values.T).to(dtype), ROUNDED)


@pytest.mark.parametrize("scheme", SCHEMES, ids=lambda s: f"{s.name}-{getattr(s, 'zero', '')}")
def test_products_with_exact_activations(
    isa: str, several: Engine, scheme: Scheme, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(VARIABLE, "1")
    for outputs, inputs in shapes(scheme):
        matrix, values, _ = stored(scheme, (outputs,), inputs)
        for rows in (1, 5, 40):
            x = random(rows, inputs, seed=rows)
            (ours,) = run(Linear(outputs), (matrix,), several, (x,))
            close(ours, x @ values.T)


@pytest.mark.parametrize("scheme", SCHEMES, ids=lambda s: f"{s.name}-{getattr(s, 'zero', '')}")
def test_whole_activations_give_whole_number_products(isa: str, several: Engine, scheme: Scheme) -> None:
    """Activations that eight bits hold exactly leave only the order of sums, and the rounding of nf4's table."""
    if isinstance(scheme, Codebook):
        pytest.skip("its table is rounded")
    for outputs, inputs in shapes(scheme):
        matrix, values, _ = stored(scheme, (outputs,), inputs)
        x = torch.randint(-127, 128, (5, inputs), generator=torch.Generator().manual_seed(1)).float()
        x[:, ::32] = 127.0
        (ours,) = run(Linear(outputs), (matrix,), several, (x,))
        close(ours, x @ values.T)


@pytest.mark.parametrize("name", GGML)
@pytest.mark.parametrize("byte", [0x00, 0xFF])
@pytest.mark.parametrize("sign", [1, -1])
def test_the_largest_sums_do_not_overflow(isa: str, several: Engine, name: str, byte: int, sign: int) -> None:
    """Every code its lowest or highest, every activation the largest of its block."""
    scheme, inputs = Ggml(type=name), 2 * GGML[name][0]
    fields = fields_of(scheme, 32, inputs)
    _, factors = GGML[name]
    blocks = fields["weight"].reshape(-1, scheme.type.nbytes)
    at = _FACTORS_AT.get(name, 0)
    kept = blocks[:, at : at + 2 * factors].clone()
    blocks.fill_(byte)
    blocks[:, at : at + 2 * factors] = kept
    made = Matrix("m", (Part("part", 32),), inputs, uses={"linear"})
    made.schemes = (scheme,)
    made.stored = layouts.store(made, torch.float32)
    assert made.stored is not None
    made.stored.fill(0, fields)
    values = scheme.dequantize(fields, (32, inputs))
    for rows in (1, 3, 9):
        x = torch.full((rows, inputs), sign * 127.0)
        (ours,) = run(Linear(32), (made,), several, (x,))
        close(ours, x @ values.T)


@pytest.mark.parametrize("name", GGML)
def test_products_of_many_panels(isa: str, engine: Engine, name: str) -> None:
    """More panels and rows than are worked on at a time."""
    inputs = 3 * GGML[name][0]
    matrix, values, _ = stored(Ggml(type=name), (150,), inputs)
    for rows in (5, 6, 16, 97):
        x = random(rows, inputs, seed=rows)
        (ours,) = run(Linear(150), (matrix,), engine, (x,))
        close(ours, x @ values.T, ROUNDED)


def test_parts_of_several_schemes_bias_and_gate(isa: str, engine: Engine) -> None:
    schemes = (Ggml(type="q4_k"), Dense(torch.float32), Ggml(type="q6_k"), Dense(torch.float32))
    made = Matrix("m", tuple(Part(f"p{i}", 48) for i in range(4)), 256)
    made.schemes = schemes
    made.stored = layouts.store(made, torch.float32)
    assert made.stored is not None
    assert made.stored.layout == "blocks+panels"
    values = []
    for index, scheme in enumerate(schemes):
        dense = {"weight": random(48, 256)}
        fields = dense if isinstance(scheme, Dense) else fields_of(scheme, 48, 256)
        made.stored.fill(index, fields)
        values.append(scheme.dequantize(fields, (48, 256)))
    bias = param(random(192, seed=3))
    linear, gate = Linear(192, bias=True), GatedActivate("silu")
    for rows in (1, 9):
        x = random(rows, 256, seed=rows)
        (sequence,) = run(linear, (made, bias), engine, (x,))
        close(sequence, x @ torch.cat(values).T + bias.tensor, ROUNDED)
        (fused,) = run(LinearGated(linear, gate), (made, bias), engine, (x,))
        assert torch.equal(fused, run(gate, (), engine, (sequence,))[0])


@pytest.mark.parametrize("name", ["q8_0", "q4_k", "q6_k"])
def test_results_do_not_depend_on_the_number_of_threads(isa: str, name: str) -> None:
    matrix, _, _ = stored(Ggml(type=name), (300, 400), 512)
    for rows in (1, 7, 100):
        x = random(rows, 512)
        first, *others = (run(Linear(700), (matrix,), Engine(pool(threads)), (x,))[0] for threads in (1, 2, 3, 4))
        assert all(torch.equal(first, other) for other in others)


def test_what_is_no_number_stays_none(isa: str, engine: Engine) -> None:
    matrix, _, _ = stored(Ggml(type="q8_0"), (32,), 64)
    for bad in (torch.nan, torch.inf):
        x = random(2, 64)
        x[1, 40] = bad
        (ours,) = run(Linear(32), (matrix,), engine, (x,))
        assert ours[0].isfinite().all()
        assert ours[1].isnan().all()


def test_schemes_that_blocks_cannot_hold_are_left_to_others() -> None:
    others = (
        Ggml(type="q2_k"), Affine(bits=3, group=24), Affine(bits=4, group=16), Affine(bits=4, group=32, act_order=True),
        Micro(fmt="nvfp4"), Affine(bits=4, group=32, group_axis="out"),
    )  # fmt: skip
    for scheme in others:
        assert BlockPart.choose(scheme, 64, 256, torch.float32) is None
