# SPDX-License-Identifier: Apache-2.0
"""Quantized weights kept as their scheme stores them: every scheme of the core has a native layout."""

from __future__ import annotations

import pytest
import torch
from cpu_kit import close, run
from torch import Tensor

from tramontane.ops import Embed, Experts, GatedActivate, Linear
from tramontane.schemes import Affine, Codebook, Float8, Micro, Scheme
from tramontane.weights import Matrix, Part
from tramontane_backend_cpu import layouts
from tramontane_backend_cpu.kernel import Engine
from tramontane_backend_cpu.layouts import NativeStored
from tramontane_backend_cpu.layouts.codes import CodePart
from tramontane_backend_cpu.library import empty_bytes, pool

SCHEMES: tuple[Scheme, ...] = (
    Affine(bits=1, group=32), Affine(bits=2, group=32, zero="int"), Affine(bits=3, group=32, zero="float"),
    Affine(bits=5, group=32), Affine(bits=6, group=32, zero="int"), Affine(bits=7, group=32, zero="float"),
    Affine(bits=3, group=64, zero="offset"), Affine(bits=2, group=16, zero="float", scale_dtype=torch.float32),
    Affine(bits=4, group=24), Affine(bits=4, group=0, zero="int", scale_dtype=torch.bfloat16),
    Affine(bits=4, group=8, group_axis="out", zero="float"), Affine(bits=3, group=0, group_axis="out"),
    Micro(fmt="nvfp4"), Micro(fmt="nvfp4", global_scale=True), Micro(fmt="mxfp4", global_scale=True),
    Micro(fmt="mxfp4", block=6), Codebook(table="nf4", block=20), Codebook(table="fp4", block=8),
    Float8(fmt="e4m3", granularity="block", block=(5, 20)), Float8(fmt="e5m2", granularity="block", block=(16, 48)),
    Float8(fmt="e4m3", granularity="channel", scale_dtype=torch.float8_e8m0fnu),
)  # fmt: skip
SHAPES = ((32, 96), (24, 50))
"""(outputs, inputs): outputs that groups of eight divide."""


def random(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)).to(dtype)


def fields_of(scheme: Scheme, outputs: int, inputs: int, seed: int = 0) -> dict[str, Tensor]:
    """Fields of random weights; of a scheme that nothing quantizes to by itself, random fields."""
    if isinstance(scheme, Affine) and (scheme.act_order or scheme.group_axis == "out"):
        generator = torch.Generator().manual_seed(seed)
        found = {}
        for name, one in scheme.fields((outputs, inputs)).items():
            if name == "group_index":
                groups = scheme.count_groups(outputs, inputs)
                found[name] = torch.randint(0, groups, one.shape, generator=generator, dtype=torch.int32)
            elif one.dtype is torch.uint8:
                high = 256 if name == "weight" else 2**scheme.bits
                found[name] = torch.randint(0, high, one.shape, generator=generator, dtype=torch.int64).to(torch.uint8)
            else:
                found[name] = torch.rand(one.shape, generator=generator).add(0.1).to(one.dtype)
        return found
    return scheme.quantize(random(outputs, inputs, seed=seed))


def part(scheme: Scheme, outputs: int, inputs: int, activations: torch.dtype = torch.float32) -> CodePart:
    made = CodePart.choose(scheme, outputs, inputs, activations, empty_bytes)
    assert made is not None
    return made


ALL = (*SCHEMES, Affine(bits=4, group=32, act_order=True, zero="int"), Affine(bits=3, group=16, act_order=True))


@pytest.mark.parametrize("scheme", ALL, ids=lambda s: f"{s.name}-{getattr(s, 'zero', '')}")
def test_values_are_the_schemes_own(isa: str, scheme: Scheme) -> None:
    for outputs, inputs in SHAPES:
        fields = fields_of(scheme, outputs, inputs)
        made = part(scheme, outputs, inputs)
        made.fill(fields)
        assert made.unpack().keys() == fields.keys()
        assert all(made.unpack()[name] is value for name, value in fields.items())
        values = scheme.dequantize(fields, (outputs, inputs))
        assert torch.equal(made.rows(torch.arange(outputs), torch.float32), values)
        assert torch.equal(made.rows(torch.tensor([outputs - 1, 0]), torch.bfloat16), values[[-1, 0]].bfloat16())
        with pytest.raises(IndexError):
            made.rows(torch.tensor([outputs]), torch.float32)


@pytest.mark.parametrize("scheme", ALL, ids=lambda s: f"{s.name}-{getattr(s, 'zero', '')}")
def test_products(isa: str, several: Engine, scheme: Scheme) -> None:
    for dtype in (torch.float32, torch.bfloat16):
        for outputs, inputs in SHAPES:
            matrix = Matrix("m", (Part("a", outputs), Part("b", outputs)), inputs)
            parts = [part(scheme, outputs, inputs, dtype) for _ in range(2)]
            matrix.stored, values = NativeStored("m", dtype, parts), []
            for seed, one in enumerate(parts):
                fields = fields_of(scheme, outputs, inputs, seed)
                one.fill(fields)
                values.append(scheme.dequantize(fields, (outputs, inputs)))
            for tokens in (1, 3, 20):
                x = random(tokens, inputs, seed=tokens, dtype=dtype)
                (ours,) = run(Linear(2 * outputs), (matrix,), several, (x,))
                close(ours, (x.float() @ torch.cat(values).T).to(dtype))


@pytest.mark.parametrize("scheme", ALL, ids=lambda s: f"{s.name}-{getattr(s, 'zero', '')}")
def test_the_backend_stores_it(scheme: Scheme) -> None:
    matrix = Matrix("m", (Part("m", 24),), 64, uses={"linear", "rows"}, schemes=(scheme,))
    matrix.stored = layouts.store(matrix, torch.float32)
    assert isinstance(matrix.stored, NativeStored)
    fields = fields_of(scheme, 24, 64)
    matrix.stored.fill(0, fields)
    values = scheme.dequantize(fields, (24, 64))
    assert torch.equal(matrix.dequantize(), values)
    back = matrix.stored.unpack(0)
    assert all(
        torch.equal(back[name].view(torch.uint8), value.view(torch.uint8))
        for name, value in fields.items()
        if value.dim()
    )
    ids = torch.tensor([23, 0, 5])
    assert torch.equal(run(Embed(64, torch.float32), (matrix,), Engine(pool(2)), (ids,))[0], values[ids])


def test_experts_of_codes(isa: str) -> None:
    scheme, tokens = Affine(bits=3, group=16, zero="int"), 9
    stacks = []
    for sizes, inputs in (([32, 32], 48), ([20], 32)):
        made = Matrix("m", tuple(Part(f"p{i}", n) for i, n in enumerate(sizes)), inputs, experts=4, uses={"experts"})
        made.schemes = tuple(scheme for _ in sizes)
        made.stored = layouts.store(made, torch.float32)
        assert made.stored is not None
        for index, size in enumerate(sizes):
            made.stored.fill(index, scheme.quantize(random(4, size, inputs, seed=index)))
        stacks.append(made)
    ids = torch.randint(0, 4, (tokens, 2), generator=torch.Generator().manual_seed(1), dtype=torch.int32)
    inputs_all = random(tokens, 48), torch.rand(tokens, 2), ids
    op = Experts(20, GatedActivate("silu"))
    (ours,) = run(op, stacks, Engine(pool(2)), inputs_all)
    close(ours, op.reference(None, stacks, *inputs_all)[0])
