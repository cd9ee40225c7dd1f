# SPDX-License-Identifier: Apache-2.0
"""Layouts bit for bit, products, norms and gates against float64, by Triton's interpreter."""

from __future__ import annotations

import os
from collections.abc import Sequence

os.environ.setdefault("TRITON_INTERPRET", "1")

import pytest
import torch
from torch import Tensor

pytest.importorskip("triton", reason="triton has packages for Linux only")

from tramontane.errors import PlanError
from tramontane.ops import ACTIVATIONS, AddRmsNorm, GatedActivate, Linear, LinearGated, Op, RmsNorm
from tramontane.schemes import Affine, Float8, Ggml, Scheme
from tramontane.testing.tiny import make_batch, make_tiny
from tramontane.weights import Matrix, Param, Part, Source
from tramontane_backend_cuda.backend import CudaBackend
from tramontane_backend_cuda.linear import choose_tiles
from tramontane_backend_cuda.storage import PlaneStored

GGML = [Ggml("q4_0"), Ggml("q8_0"), Ggml("q4_k"), Ggml("q6_k")]
OTHERS = [
    Affine(bits=4, group=32),
    Affine(bits=4, group=0, zero="int"),
    Affine(bits=4, group=18, zero="float"),
    Affine(bits=8, group=64, zero="offset", scale_dtype=torch.bfloat16),
    Float8(),
    Float8(fmt="e5m2", granularity="channel"),
    Float8(granularity="block", block=(8, 24), scale_dtype=torch.bfloat16),
]

BFLOAT16 = 1.6e-2
"""Of results in bfloat16, relative to the largest: two roundings; Triton's interpreter cuts bits off."""


def draw(*shape: int, dtype: torch.dtype = torch.float32, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)).to(dtype)


def fields_of(scheme: Scheme, outputs: int, inputs: int, seed: int) -> dict[str, Tensor]:
    """Canonical fields: any bytes for GGML types, with factors that are ordinary numbers."""
    if not isinstance(scheme, Ggml):
        return scheme.quantize(draw(outputs, inputs, seed=seed))
    random = torch.Generator().manual_seed(seed)
    weight = torch.randint(0, 256, scheme.fields((outputs, inputs))["weight"].shape, generator=random).to(torch.uint8)
    blocks = weight.view(-1, scheme.type.nbytes)
    places = {"q4_k": (0, 2), "q6_k": (208,)}.get(scheme.name, (0,))
    for place in places:
        factors = torch.rand(blocks.shape[0], 1, generator=random).mul(0.01).to(torch.float16)
        blocks[:, place : place + 2] = factors.view(torch.uint8)
    return {"weight": weight}


def matrix(schemes: Sequence[Scheme], sizes: Sequence[int], inputs: int, dtype: torch.dtype) -> Matrix:
    made = Matrix("m", tuple(Part(f"part{i}", size) for i, size in enumerate(sizes)), inputs)
    made.schemes = tuple(schemes)
    made.stored = CudaBackend().store(made, dtype)
    assert isinstance(made.stored, PlaneStored)
    for index, (scheme, size) in enumerate(zip(schemes, sizes, strict=True)):
        made.stored.fill(index, fields_of(scheme, size, inputs, index))
    return made


def param(value: Tensor) -> Param:
    made = Param("w", (Source("w", "weight", tuple(value.shape)),), value.dtype)
    made.value = value
    return made


def run(op: Op, weights: Sequence[object], *inputs: Tensor) -> list[Tensor]:
    """By the Triton kernel. Outputs start as NaN: every element must be written."""
    name, make = CudaBackend().candidates(op)[0]
    assert name == f"cuda.{op.name}"
    kernel = make(op, weights)
    assert not isinstance(kernel, str), kernel
    outputs = [torch.full(shape, torch.nan, dtype=dtype) for shape, dtype in op.outputs(weights, *inputs)]
    kernel(None, inputs, outputs)
    return outputs


def close(ours: Tensor, wanted: Tensor, tolerance: float) -> None:
    bound = tolerance * max(1.0, wanted.abs().max().item())
    torch.testing.assert_close(ours.double(), wanted.double(), atol=bound, rtol=0)


def exact_weight(made: Matrix) -> Tensor:
    """From the schemes' own rules, in float64."""
    return torch.cat([
        scheme.dequantize(made.storage().unpack(i), (part.out_features, made.in_features)).double()
        for i, (scheme, part) in enumerate(zip(made.schemes, made.parts, strict=True))
    ])  # fmt: skip


@pytest.mark.parametrize("scheme", [*GGML, *OTHERS], ids=str)
def test_planes_give_back_the_fields_bit_for_bit(scheme: Scheme) -> None:
    inputs = 512 if isinstance(scheme, Ggml) else 90
    made = matrix([scheme] * 2, [24, 8], inputs, torch.float32)
    for index, size in enumerate((24, 8)):
        given, back = fields_of(scheme, size, inputs, index), made.storage().unpack(index)
        assert given.keys() == back.keys()
        for name, one in given.items():
            assert one.dtype is back[name].dtype
            assert torch.equal(one.reshape(-1).view(torch.uint8), back[name].reshape(-1).view(torch.uint8))
    if not isinstance(scheme, Ggml) or scheme.name != "q4_k":
        assert made.storage().nbytes == sum(scheme.nbytes((size, inputs)) for size in (24, 8))


@pytest.mark.parametrize("scheme", [*GGML, *OTHERS], ids=str)
def test_products(scheme: Scheme) -> None:
    inputs = 256 if isinstance(scheme, Ggml) else 90
    made = matrix([scheme], [19], inputs, torch.float32)
    weight = exact_weight(made)
    wide = draw(65, inputs + 3)
    for tokens in (1, 5, 65):
        x = wide[:tokens, 2 : 2 + inputs]
        (y,) = run(Linear(19), (made,), x)
        close(y, x.double() @ weight.T, 2e-5)


def test_split_products_give_the_same_bits_each_time() -> None:
    made = matrix([Affine(bits=4, group=64)], [16], 1090, torch.float32)
    for tokens in (1, 3):
        assert choose_tiles(tokens, 16, 1090, pairs=True).splits > 1
        x = draw(tokens, 1090)
        (y,) = run(Linear(16), (made,), x)
        close(y, x.double() @ exact_weight(made).T, 2e-5)
        assert torch.equal(y, run(Linear(16), (made,), x)[0])


@pytest.mark.parametrize("tokens", [2, 20])
def test_parts_bias_narrow_activations_and_a_wider_result(tokens: int) -> None:
    made = matrix([Ggml("q4_k"), Ggml("q6_k"), Ggml("q6_k")], [24, 9, 7], 256, torch.float16)
    shift, x = draw(40, dtype=torch.float16, seed=5), draw(tokens, 256, dtype=torch.float16)
    (y,) = run(Linear(40, bias=True, out_dtype=torch.float32), (made, param(shift)), x)
    assert len(made.storage().runs) == 2
    close(y, x.double() @ exact_weight(made).T + shift.double(), 2e-3)


def test_one_token_of_bfloat16() -> None:
    made = matrix([Ggml("q8_0")], [48], 64, torch.bfloat16)
    x = draw(1, 64, dtype=torch.bfloat16)
    (y,) = run(Linear(48), (made,), x)
    close(y, x.double() @ exact_weight(made).T, BFLOAT16)


@pytest.mark.parametrize("tokens", [1, 6, 65])
def test_a_gate_in_the_sum(tokens: int) -> None:
    scheme = Affine(bits=4, group=32, zero="int")
    made = matrix([scheme, scheme], [20, 20], 96, torch.float32)
    op, x, shift = LinearGated(Linear(40, bias=True), GatedActivate("silu")), draw(tokens, 96), draw(40, seed=9)
    (y,) = run(op, (made, param(shift)), x)
    gate, up = (x.double() @ exact_weight(made).T + shift.double()).chunk(2, dim=-1)
    close(y, torch.nn.functional.silu(gate) * up, 2e-5)


@pytest.mark.parametrize("act", sorted(ACTIVATIONS))
def test_gates(act: str) -> None:
    x = draw(3, 80)[:, 1:75]
    (y,) = run(GatedActivate(act), (), x)
    gate, up = x.double().chunk(2, dim=-1)
    close(y, ACTIVATIONS[act](gate) * up, 2e-6)


@pytest.mark.parametrize("late", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_norms(dtype: torch.dtype, late: bool) -> None:
    x, other, weight = (draw(3, 45, dtype=dtype, seed=i) for i in (1, 2, 3))
    weight, tolerance = param(weight[0]), 1e-5 if dtype is torch.float32 else BFLOAT16
    for op, inputs in (
        (RmsNorm(1e-5, late_cast=late), (x,)),
        (RmsNorm(1e-5, scaled=False), (x,)),
        (RmsNorm(1e-5, late_cast=late), (x.view(3, 1, 45).expand(3, 2, 45),)),
        (AddRmsNorm(1e-5, late_cast=late), (x, other)),
    ):
        total = sum(one.double() for one in inputs).to(dtype).double()
        wanted = total * (total.square().mean(-1, keepdim=True) + 1e-5).rsqrt()
        if not isinstance(op, RmsNorm) or op.scaled:
            wanted = wanted * weight.tensor.double()
        ours = run(op, (weight,), *inputs)
        close(ours[0], wanted, tolerance)
        if isinstance(op, AddRmsNorm):
            close(ours[1], x + other, 0 if dtype is torch.float32 else BFLOAT16)


def test_splits_cover_the_inputs_once() -> None:
    for tokens, outputs, inputs, pairs in ((1, 64, 4096, True), (3, 16, 5000, False), (64, 100000, 64, True)):
        tiles = choose_tiles(tokens, outputs, inputs, pairs=pairs)
        steps = -(-inputs // 2) if pairs else inputs
        assert (tiles.splits - 1) * tiles.reach < steps <= tiles.splits * tiles.reach
        assert tiles.reach % tiles.bk == 0


def test_a_model_takes_the_kernels() -> None:
    def scheme_of(path: str) -> Scheme:
        return Ggml("q8_0") if ".attn." in path else Affine(bits=4, group=32, zero="int")

    tiny = make_tiny(CudaBackend(), scheme_of=scheme_of)
    chosen = {bound.choice.kernel for bound in tiny.blueprint.ops if bound.choice is not None}
    assert {"cuda.linear", "cuda.rms_norm", "cuda.add_rms_norm"} <= chosen
    from tramontane.backends.torch import TorchBackend

    stock = make_tiny(TorchBackend(), scheme_of=scheme_of)
    with torch.inference_mode():
        close(tiny.body(make_batch(5, 3, 2)), stock.body(make_batch(5, 3, 2)), 2e-4)


def test_a_cpu_is_refused_without_the_interpreter(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRITON_INTERPRET", "0")
    with pytest.raises(PlanError, match="does not run on cpu"):
        CudaBackend(torch.device("cpu"))
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert "no CUDA device" in (CudaBackend.probe() or "")
