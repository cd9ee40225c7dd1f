# SPDX-License-Identifier: Apache-2.0
"""Planes bit for bit, and products of every scheme against float64, by Triton's interpreter."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

pytest.importorskip("triton", reason="triton has packages for Linux only")

import torch
from cuda_kit import BFLOAT16, HERE, close, draw, exact_weight, fields_of, matrix, param, run
from torch import Tensor

from tramontane.ops import ACTIVATIONS, Embed, GatedActivate, Linear, LinearGated, RmsNorm
from tramontane.schemes import Act, Affine, Codebook, Dense, Float8, Ggml, Micro, Scheme
from tramontane.schemes.ggml import BlockCodec
from tramontane.testing.grids import mostly_full
from tramontane_backend_cuda import linear as linear_ops
from tramontane_backend_cuda.forms import form_of
from tramontane_backend_cuda.fused import LinearAdd, NormLinear
from tramontane_backend_cuda.source import choose_tiles
from tramontane_backend_cuda.storage import PlaneStored


def codec(name: str, block: int, nbytes: int) -> Ggml:
    """A type that another plugin brings; only its name and sizes matter here."""
    return Ggml(BlockCodec(name, 0, block, nbytes, lambda blocks: torch.zeros(len(blocks), block)))


GGML = [Ggml(name) for name in ("q4_0", "q4_1", "q5_0", "q5_1", "q8_0", "q2_k", "q3_k", "q4_k", "q5_k", "q6_k")]
FOREIGN = [codec("iq4_nl", 32, 18), codec("iq4_xs", 256, 136), codec("mxfp4", 32, 17)]
AFFINE = [
    *(Affine(bits=bits, group=32, zero=zero) for bits, zero in ((1, "offset"), (2, "int"), (3, "float"), (4, "none"))),
    *(Affine(bits=bits, group=64, zero=zero) for bits, zero in ((5, "int"), (6, "offset"), (7, "none"), (8, "int"))),
    Affine(bits=4, group=0, zero="float", scale_dtype=torch.bfloat16),
    Affine(bits=3, group=16),
    Affine(bits=4, group=32, zero="float", scale_dtype=torch.float32),  # more than a word holds of a tile
]
FLOATS = [
    Float8(),
    Float8(fmt="e5m2", granularity="channel"),
    Float8(granularity="block", block=(8, 32), scale_dtype=torch.bfloat16),
    Float8(granularity="block", block=(8, 32), scale_dtype=torch.float8_e8m0fnu),
    Codebook("nf4", 64),
    Codebook("fp4", 32, torch.float16),
    Micro("mxfp4"),
    Micro("nvfp4", global_scale=True),
]
ALL = [*GGML, *AFFINE, *FLOATS]
OFTEN = (*(GGML[i] for i in (4, 5, 7, 9)), *(AFFINE[i] for i in (1, 3, 9, 10)), *(FLOATS[i] for i in (2, 4, 7)))
"""Multiplied in every run; the others in the long one."""


def named(scheme: Scheme) -> str:
    return f"{scheme.name}-{getattr(scheme, 'zero', '')}{getattr(scheme, 'scale_dtype', '')}"


def inputs_of(scheme: Scheme, ragged: bool = True) -> int:
    """Whole blocks, and a ragged end where there may be one."""
    return 512 if isinstance(scheme, Ggml) else 90 if ragged else 384


@pytest.mark.parametrize("scheme", [*ALL, *FOREIGN], ids=named)
def test_planes_give_back_the_fields_bit_for_bit(scheme: Scheme) -> None:
    inputs = inputs_of(scheme)
    for experts in (None, 3):
        made = matrix([scheme] * 2, [24, 8], inputs, torch.float32, experts=experts)
        for index, size in enumerate((24, 8)):
            given, back = fields_of(scheme, size, inputs, index, experts), made.storage().unpack(index)
            assert given.keys() == back.keys()
            for name, one in given.items():
                assert one.dtype is back[name].dtype
                assert one.shape == back[name].shape
                same = back[name].contiguous().reshape(-1).view(torch.uint8)
                assert torch.equal(one.contiguous().reshape(-1).view(torch.uint8), same)


@pytest.mark.parametrize("scheme", mostly_full(ALL, OFTEN), ids=named)
@pytest.mark.parametrize("ragged", mostly_full((True, False), (False,)), ids=["ragged", "whole"])
def test_products(scheme: Scheme, ragged: bool) -> None:
    inputs = inputs_of(scheme, ragged)
    made = matrix([scheme], [19], inputs, torch.float32)
    weight = exact_weight(made)
    wide = draw(65, inputs + 3)
    for tokens in (1, 3, 65):
        x = wide[:tokens, 2 : 2 + inputs]
        (y,) = run(Linear(19), (made,), x)
        close(y, x.double() @ weight.T)


@pytest.mark.parametrize("scheme", FOREIGN, ids=named)
def test_types_of_other_plugins(scheme: Ggml) -> None:
    gguf = pytest.importorskip("gguf", reason="the reference decoder is a development dependency")
    made = matrix([scheme], [5], 256, torch.float32)
    raw = made.storage().unpack(0)["weight"].cpu().numpy()
    kind = getattr(gguf.GGMLQuantizationType, scheme.name.upper())
    weight = torch.from_numpy(gguf.quants.dequantize(raw, kind)).to(HERE).double().view(5, 256)
    for tokens in (1, 6):
        x = draw(tokens, 256)
        close(run(Linear(5), (made,), x)[0], x.double() @ weight.T)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_dense_products(dtype: torch.dtype) -> None:
    made = matrix([Dense(dtype)] * 2, [13, 6], 72, dtype)
    weight = exact_weight(made)
    for tokens in (1, 2, 9, 17):
        x = draw(tokens, 72, dtype=dtype)
        close(run(Linear(19), (made,), x)[0], x.double() @ weight.T)


@pytest.mark.parametrize("tokens", mostly_full((1, 3, 6), (1, 6)))
@pytest.mark.parametrize("inputs", [2560, pytest.param(2500, marks=pytest.mark.full)])
def test_split_products_give_the_same_bits_each_time(tokens: int, inputs: int) -> None:
    made = matrix([Affine(bits=4, group=64)], [16], inputs, torch.float32)
    (source,) = linear_ops.Product.of((made,), bias=False).sources
    assert bool(source.pieces["PIECE"]) is (inputs == 2560)
    assert choose_tiles(tokens, 16, source).splits > 1
    norm, residual, x = param(draw(inputs, seed=7)), draw(6, 16, seed=8)[:tokens], draw(tokens, inputs)
    (y,) = run(Linear(16), (made,), x)
    close(y, x.double() @ exact_weight(made).T)
    assert torch.equal(y, run(Linear(16), (made,), x)[0])
    (y,) = run(LinearAdd(Linear(16)), (made,), x, residual)
    close(y, x.double() @ exact_weight(made).T + residual)
    (y,) = run(NormLinear(RmsNorm(1e-5), Linear(16)), (norm, made), x)
    close(y, normed(x, norm.tensor) @ exact_weight(made).T)


def normed(x: Tensor, weight: Tensor) -> Tensor:
    wide = x.double()
    return wide * (wide.square().mean(-1, keepdim=True) + 1e-5).rsqrt() * weight.double()


def test_splits_cover_the_inputs_once() -> None:
    for tokens, outputs, inputs in ((1, 64, 2048), (3, 16, 2500), (64, 1000, 32), (20, 32, 32768)):
        made = matrix([Affine(bits=4, group=0)], [outputs], inputs, torch.float32)
        (source,) = linear_ops.Product.of((made,), bias=False).sources
        tiles, chunks = choose_tiles(tokens, outputs, source), source.chunks
        assert (tiles.splits - 1) * tiles.reach < chunks <= tiles.splits * tiles.reach
        assert tiles.reach % tiles.bg == 0


@pytest.mark.parametrize("tokens", [2, 20])
def test_parts_bias_narrow_activations_and_a_wider_result(tokens: int) -> None:
    made = matrix([Ggml("q4_k"), Ggml("q6_k"), Dense(torch.float16)], [24, 9, 7], 256, torch.float16)
    shift, x = draw(40, dtype=torch.float16, seed=5), draw(tokens, 256, dtype=torch.float16)
    (y,) = run(Linear(40, bias=True, out_dtype=torch.float32), (made, param(shift)), x)
    assert isinstance(made.stored, PlaneStored)
    assert len(made.stored.runs) == 3
    close(y, x.double() @ exact_weight(made).T + shift.double(), 2e-3)


@pytest.mark.parametrize("tokens", [1, 6])
def test_bfloat16(tokens: int) -> None:
    made = matrix([Ggml("q8_0")], [48], 64, torch.bfloat16)
    x = draw(tokens, 64, dtype=torch.bfloat16)
    close(run(Linear(48), (made,), x)[0], x.double() @ exact_weight(made).T, BFLOAT16)


@pytest.mark.parametrize("tokens", mostly_full((1, 6, 65), (1, 6)))
@pytest.mark.parametrize("schemes", [[Affine(bits=4, group=32, zero="int")] * 2, [Ggml("q8_0"), Dense(torch.float32)]])
def test_a_norm_before_and_a_gate_after(tokens: int, schemes: Sequence[Scheme]) -> None:
    made = matrix(schemes, [20, 20], 96, torch.float32)
    op, x, shift = LinearGated(Linear(40, bias=True), GatedActivate("silu")), draw(tokens, 96), param(draw(40, seed=9))
    gain = param(draw(96, seed=4))
    for given, seen, weights in ((op, x.double(), (made, shift)),
        (NormLinear(RmsNorm(1e-5), op), normed(x, gain.tensor), (gain, made, shift))):  # fmt: skip
        gate, up = (seen @ exact_weight(made).T + shift.tensor.double()).chunk(2, dim=-1)
        close(run(given, weights, x)[0], ACTIVATIONS["silu"](gate) * up)


@pytest.mark.parametrize("tokens", [1, 6, 65])
def test_a_residual_after(tokens: int) -> None:
    for schemes in ([Ggml("q8_0")], [Dense(torch.float32)], [Ggml("q8_0"), Ggml("q4_0")]):
        made = matrix(schemes, [20] * len(schemes), 64, torch.float32)
        x, residual = draw(tokens, 64), draw(tokens, made.out_features, seed=3)
        (y,) = run(LinearAdd(Linear(made.out_features)), (made,), x, residual)
        close(y, x.double() @ exact_weight(made).T + residual.double())


def test_large_dense_matrices_and_many_tokens_go_to_cublas(monkeypatch: pytest.MonkeyPatch) -> None:
    made = matrix([Dense(torch.float32)], [24], 64, torch.float32)
    (source,) = linear_ops.Product.of((made,), bias=False).sources
    plain, normed = linear_ops.PLAIN, linear_ops.Extras(norm=draw(64))
    assert [linear_ops.by_planes(source, draw(n, 64), plain) for n in (1, 16, 17)] == [True, True, False]
    monkeypatch.setattr(linear_ops, "CUBLAS_BYTES", 64)
    assert not linear_ops.by_planes(source, draw(1, 64), plain)
    packed = linear_ops.Product.of((matrix([Affine(bits=4, group=128)], [24], 128, torch.float32),), bias=False)
    assert [linear_ops.by_planes(packed.sources[0], draw(n, 128), plain) for n in (64, 65)] == [True, False]
    assert [linear_ops.by_planes(packed.sources[0], draw(n, 128), normed) for n in (16, 17)] == [True, False]


@pytest.mark.parametrize("kind", ["fp8", "int8"])
def test_rules_for_activations(kind: str) -> None:
    act, plain = Act(kind), Float8(granularity="channel")
    static = Act(kind, scale="static", per="tensor")
    for schemes in ([Float8(granularity="channel", act=act)] * 2, [Float8(granularity="channel", act=static), plain]):
        made = matrix(schemes, [16, 8], 64, torch.float32)
        for tokens in (1, 7):
            x = draw(tokens, 64)
            wanted = Linear(24).reference(None, (made,), x)[0]
            close(run(Linear(24), (made,), x)[0], wanted)
            (y,) = run(NormLinear(RmsNorm(1e-5), Linear(24)), (param(torch.ones(64)), made), x)
            close(y, NormLinear(RmsNorm(1e-5), Linear(24)).reference(None, (param(torch.ones(64)), made), x)[0], 1e-2)


@pytest.mark.parametrize("scheme", [Dense(torch.float32), Ggml("q6_k"), Affine(bits=3, group=32), FLOATS[2]], ids=named)
def test_rows_of_an_embedding(scheme: Scheme) -> None:
    made = matrix([scheme], [21], 256, torch.float32, uses={"rows", "linear"})
    ids = torch.tensor([3, 20, 0, 3])
    weight = exact_weight(made)[ids]
    close(run(Embed(256, torch.float32), (made,), ids)[0], weight, 1e-6)
    close(run(Embed(256, torch.float32, scale=16.0), (made,), ids)[0], weight * 16, 1e-6)
    close(made.rows(ids), weight, 1e-6)


def test_what_has_no_planes() -> None:
    for scheme in (Affine(group=4), Affine(group_axis="out"), Affine(act_order=True), Float8("e4m3", "block", (8, 20))):
        assert form_of(scheme) is None
