# SPDX-License-Identifier: Apache-2.0
"""Quantized weights in the block layout: exact there and back, and products against what the schemes define."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from importlib.util import find_spec

import pytest
import torch
from cpu_kit import close, param, run
from torch import Tensor

from tramontane.ops import Embed, GatedActivate, Linear, LinearGated
from tramontane.schemes import Affine, BlockCodec, Codebook, Dense, Float8, Ggml, Micro, Scheme
from tramontane.schemes.ggml import CODECS
from tramontane.weights import Matrix, Part
from tramontane_backend_cpu import layouts
from tramontane_backend_cpu.kernel import Engine
from tramontane_backend_cpu.layouts.blocks import BlockPart
from tramontane_backend_cpu.library import pool
from tramontane_backend_cpu.precision import VARIABLE

_FILES = "tramontane_quant_gguf"
TYPES: Mapping[str, BlockCodec] = import_module(f"{_FILES}.codecs").CODECS if find_spec(_FILES) else CODECS
FACTORS: Mapping[str, tuple[int, int]] = {
    "q8_0": (0, 1), "q4_0": (0, 1), "q4_1": (0, 2), "q5_0": (0, 1), "q5_1": (0, 2), "q4_k": (0, 2), "q5_k": (0, 2),
    "q6_k": (208, 1), "q2_k": (80, 2), "q3_k": (108, 1), "iq4_nl": (0, 1), "iq4_xs": (0, 1), "tq1_0": (52, 1),
    "tq2_0": (64, 1), "mxfp4": (0, 0), "nvfp4": (0, 0), "iq1_s": (0, 1), "iq1_m": (0, 0), "iq2_xxs": (0, 1),
    "iq2_xs": (0, 1), "iq2_s": (0, 1), "iq3_xxs": (0, 1), "iq3_s": (0, 1),
}  # fmt: skip
"""Type -> where in a block its float16 factors begin, and how many they are."""
GGML = {name: Ggml(type=TYPES[name]) for name in FACTORS if name in TYPES}
SCHEMES: tuple[Scheme, ...] = (
    *GGML.values(),
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
    codec = scheme.type
    blocks = torch.randint(0, 256, (outputs * inputs // codec.block, codec.nbytes), generator=generator).to(torch.uint8)
    return {"weight": with_scales(blocks, scheme, generator).reshape(outputs, -1)}


def with_scales(blocks: Tensor, scheme: Ggml, generator: torch.Generator) -> Tensor:
    """Blocks whose factors are numbers of a sensible size."""
    at, count = FACTORS[scheme.type.name]
    factors = (torch.rand(len(blocks), count, generator=generator) - 0.3).mul(0.05).to(torch.float16)
    blocks[:, at : at + 2 * count] = factors.view(torch.uint8)
    if scheme.type.name == "mxfp4":
        blocks[:, 0] = torch.randint(120, 128, (len(blocks),), generator=generator)
        blocks[:2, 0] = torch.tensor([0, 1])  # the two without an exponent
    elif scheme.type.name == "nvfp4":
        blocks[0, :4] = torch.tensor([0x7F, 0xFF, 0x80, 0x01])  # nothing, the largest, nothing, the smallest
    elif scheme.type.name == "iq1_m":
        blocks[:, 55] = blocks[:, 55] % 16 + 0x20  # its factor, spread over four bytes: below one
    return blocks


def shapes(scheme: Scheme) -> tuple[tuple[int, int], ...]:
    """(outputs, inputs): whole panels, and ragged ones."""
    if isinstance(scheme, Ggml):
        return (32, 2 * scheme.type.block), (45, 3 * scheme.type.block)
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


@pytest.mark.parametrize("scheme", GGML.values(), ids=GGML)
@pytest.mark.parametrize("byte", [0x00, 0xFF])
@pytest.mark.parametrize("sign", [1, -1])
def test_the_largest_sums_do_not_overflow(isa: str, several: Engine, scheme: Ggml, byte: int, sign: int) -> None:
    """Every code its lowest or highest, every activation the largest of its block."""
    inputs = 2 * scheme.type.block
    blocks = torch.full((32 * 2, scheme.type.nbytes), byte, dtype=torch.uint8)
    fields = {"weight": with_scales(blocks, scheme, torch.Generator().manual_seed(0)).reshape(32, -1)}
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


@pytest.mark.parametrize("scheme", GGML.values(), ids=GGML)
def test_products_of_many_panels(isa: str, engine: Engine, scheme: Ggml) -> None:
    """More panels and rows than are worked on at a time."""
    inputs = 3 * scheme.type.block
    matrix, values, _ = stored(scheme, (150,), inputs)
    for rows in (5, 6, 16, 97):
        x = random(rows, inputs, seed=rows)
        (ours,) = run(Linear(150), (matrix,), engine, (x,))
        close(ours, x @ values.T, ROUNDED)


@pytest.mark.skipif("tq1_0" not in GGML, reason="comes with the plugin of GGUF files")
def test_bytes_that_mean_what_others_do_come_back() -> None:
    """13 of 256 bytes of tq1_0 are written by nobody; rows that have some are kept beside the panels."""
    scheme = GGML["tq1_0"]
    assert scheme.type.quantize is not None
    written = scheme.type.quantize(random(64, 256)).reshape(32, -1)
    for rows, kept in ((written, 0), (fields_of(scheme, 32, 512)["weight"], written.numel())):
        part = BlockPart.choose(scheme, 32, 512, torch.float32)
        assert part is not None
        part.fill({"weight": rows})
        assert torch.equal(part.unpack()["weight"], rows)
        assert part.nbytes == part.memory.numel() + kept


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


@pytest.mark.parametrize("fmt", ["e4m3", "e5m2"])
def test_a_weight_that_is_no_number_taints_its_output_alone(isa: str, engine: Engine, fmt: str) -> None:
    scheme = Float8(fmt=fmt, granularity="channel")
    fields = fields_of(scheme, 45, 331)
    fields["weight"].view(torch.uint8)[5, 330] = fields["weight"].view(torch.uint8)[37, 2] = 0x7F
    made = BlockPart.choose(scheme, 45, 331, torch.float32)
    assert made is not None
    made.fill(fields)
    matrix = Matrix("m", (Part("m", 45),), 331, uses={"linear"}, schemes=(scheme,))
    matrix.stored = layouts.NativeStored("m", torch.float32, [made])
    for rows in (1, 2, 4, 9):
        (ours,) = run(Linear(45), (matrix,), engine, (random(rows, 331),))
        assert torch.equal(ours.isnan().any(0).nonzero().flatten(), torch.tensor([5, 37]))
        assert ours[:, [5, 37]].isnan().all()


def test_schemes_that_blocks_cannot_hold_are_left_to_others() -> None:
    others = (
        Affine(bits=3, group=24), Affine(bits=4, group=16), Affine(bits=4, group=32, act_order=True),
        Micro(fmt="nvfp4"), Affine(bits=4, group=32, group_axis="out"),
    )  # fmt: skip
    for scheme in others:
        assert BlockPart.choose(scheme, 64, 256, torch.float32) is None
