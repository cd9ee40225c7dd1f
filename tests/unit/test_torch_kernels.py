# SPDX-License-Identifier: Apache-2.0
"""Every kernel of the torch backend against the reference of its op, into poisoned outputs."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from attrs import define
from torch import Tensor

from tramontane import ops
from tramontane.backends.reference import ReferenceBackend
from tramontane.backends.torch import TorchBackend, linear
from tramontane.cache.spec import CacheKind, CacheSpec, plan_layout
from tramontane.ops import BoundOp, Op, Runtime
from tramontane.schemes import Affine, Dense
from tramontane.testing.tiny import make_batch
from tramontane.weights import CacheSlot, Matrix, Part

TOLERANCE = {torch.float32: 2e-6, torch.bfloat16: 2e-2}


@define
class Vector:
    """Stands for a loaded parameter."""

    tensor: Tensor


def both(op: Op, weights: tuple[Any, ...], inputs: tuple[Tensor, ...], ctx: Any = None) -> tuple[Any, Any]:
    """The reference's and the torch kernel's outputs."""
    runtime, results = Runtime(torch.device("cpu")), []
    for backend in (ReferenceBackend(), TorchBackend()):
        bound = BoundOp(op, weights, runtime)
        bound.bind(backend.candidates(op))
        outputs = bound.allocate(inputs)
        for out in outputs:
            out.fill_(float("nan"))
        bound.run(ctx, inputs, outputs)
        results.append(outputs)
    assert bound.choice is not None
    assert bound.choice.kernel == f"torch.{op.name}", "the kernel itself ran, not the fallback"
    return results[0], results[1]


def check(op: Op, weights: tuple[Any, ...], inputs: tuple[Tensor, ...], ctx: Any = None) -> None:
    expected, found = both(op, weights, inputs, ctx)
    for a, b in zip(expected, found, strict=True):
        tolerance = TOLERANCE.get(inputs[0].dtype, 2e-6)
        scale = float(a.abs().max().clamp(min=1))
        torch.testing.assert_close(b.float(), a.float(), atol=tolerance * scale, rtol=tolerance)


def matrix(out: int, into: int, dtype: torch.dtype, uses: str = "linear") -> Matrix:
    made = Matrix("m", (Part("m", out),), into, uses={uses}, schemes=(Dense(dtype),))
    made.stored = TorchBackend().store(made, dtype)
    made.stored.fill(0, {"weight": (torch.randn(out, into) / into**0.5).to(dtype)})
    return made


DTYPES = pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["f32", "bf16"])


@DTYPES
@pytest.mark.parametrize("tokens", [1, 3, 17])
def test_dense(dtype: torch.dtype, tokens: int) -> None:
    x, w, bias = torch.randn(tokens, 24).to(dtype), matrix(40, 24, dtype), Vector(torch.randn(40).to(dtype))
    check(ops.Linear(40), (w,), (x,))
    check(ops.Linear(40, bias=True), (w, bias), (x,))
    check(ops.LinearGated(ops.Linear(40), ops.GatedActivate("silu")), (w,), (x,))
    check(ops.LinearGated(ops.Linear(40, bias=True), ops.GatedActivate("gelu_tanh")), (w, bias), (x,))
    ids = torch.randint(0, 40, (tokens,))
    check(ops.Embed(24, dtype), (matrix(40, 24, dtype, "rows"),), (ids,))
    check(ops.Embed(24, dtype, scale=4.9), (matrix(40, 24, dtype, "rows"),), (ids,))
    check(ops.TakeRows(), (), (x, torch.randint(0, tokens, (5,))))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=["bf16", "f16"])
def test_products_of_16_bits_where_the_processor_has_none(dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(linear, "_multiplies", lambda _: False)
    monkeypatch.setattr(linear, "WIDENED_ELEMENTS", 24 * 16)  # some of the 40 outputs at a time
    x, w, bias = torch.randn(17, 24).to(dtype), matrix(40, 24, dtype), Vector(torch.randn(40).to(dtype))
    for op, weights in ((ops.Linear(40), (w,)), (ops.Linear(40, bias=True), (w, bias))):
        (found,) = both(op, weights, (x,))[1]
        exact = x.double() @ w.dequantize().double().t() + (bias.tensor.double() if len(weights) == 2 else 0)
        torch.testing.assert_close(found.double(), exact, rtol=torch.finfo(dtype).eps / 2, atol=1e-6)


def test_float32_logits_from_narrow_activations() -> None:
    x, w = torch.randn(3, 24).bfloat16(), matrix(40, 24, torch.bfloat16)
    expected, found = both(ops.Linear(40, out_dtype=torch.float32), (w,), (x,))
    assert found[0].dtype is torch.float32
    torch.testing.assert_close(found[0], expected[0], atol=2e-2, rtol=2e-2)


def test_a_scheme_without_a_kernel_is_dequantized() -> None:
    scheme = Affine(bits=4, group=32, zero="int")
    made = Matrix("m", (Part("a", 8), Part("b", 16)), 64, schemes=(scheme, Dense(torch.float32)))
    made.stored = TorchBackend().store(made, torch.float32)
    made.stored.fill(0, scheme.quantize(torch.randn(8, 64)))
    made.stored.fill(1, {"weight": torch.randn(16, 64)})
    check(ops.Linear(24), (made,), (torch.randn(5, 64),))


@DTYPES
@pytest.mark.parametrize("late", [False, True])
def test_norms(dtype: torch.dtype, late: bool) -> None:
    x, y = (torch.randn(5, 3, 24).mul(4).to(dtype) for _ in range(2))
    weight = Vector(torch.randn(24).to(torch.float32 if late else dtype))
    check(ops.RmsNorm(1e-5, late_cast=late), (weight,), (x,))
    check(ops.RmsNorm(1e-5, late_cast=late, scaled=False), (), (x,))
    check(ops.AddRmsNorm(1e-5, late_cast=late), (weight,), (x, y))


@DTYPES
def test_pointwise(dtype: torch.dtype) -> None:
    x, y = (torch.randn(5, 24).mul(3).to(dtype) for _ in range(2))
    for op in (ops.Add(), ops.Multiply()):
        check(op, (), (x, y))
    for op in (ops.Scale(0.37), ops.Softcap(2.0), *(ops.GatedActivate(a) for a in ops.ACTIVATIONS)):
        check(op, (), (x,))


@DTYPES
@pytest.mark.parametrize("interleaved", [False, True])
@pytest.mark.parametrize("pairs", [8, 5])
def test_rotation(dtype: torch.dtype, interleaved: bool, pairs: int) -> None:
    q, k = torch.randn(6, 4, 16).to(dtype), torch.randn(6, 2, 16).to(dtype)
    angle = torch.randn(6, pairs)
    check(ops.Rotate(interleaved=interleaved), (), (q, k, torch.cat((angle.cos(), angle.sin()), 1)))
    check(ops.RopeAngles(pairs), (Vector(torch.randn(30, 2 * pairs)),), (torch.randint(0, 30, (1, 6)),))


def cache(dtype: torch.dtype, window: int | None) -> CacheSlot:
    kind = CacheKind.FULL if window is None else CacheKind.WINDOW
    slot = CacheSlot("attn", CacheSpec(kind=kind, kv_heads=2, head_dim=16, window=window, dtype=dtype))
    layout = plan_layout({"attn": slot.spec}, 16)
    TorchBackend().make_cache(layout, [slot], 64)
    for plane in slot.planes:
        plane.copy_(torch.randn(plane.shape))
    return slot


@DTYPES
@pytest.mark.parametrize("window", [None, 5])
@pytest.mark.parametrize("softcap", [None, 3.0])
@pytest.mark.parametrize("sinks", [False, True])
@pytest.mark.parametrize("extent", [(37, 9, 4), (6, 6, 6), (1, 1, 1), (40, 2, 2)])
def test_attention(
    dtype: torch.dtype, window: int | None, softcap: float | None, sinks: bool, extent: tuple[int, int, int]
) -> None:
    op = ops.Attend(6, 2, 16, 16, 0.25, window=window, softcap=softcap, sinks=sinks)
    weights = (cache(dtype, window), Vector(torch.randn(6)))[: 2 if sinks else 1]
    ctx = make_batch(*extent)
    check(op, weights, (torch.randn(extent[0], 6, 16).to(dtype),), ctx)


@pytest.mark.parametrize("window", [None, 5])
def test_many_rows_deep_in_the_cache_decode_as_the_reference(window: int | None) -> None:
    ctx = make_batch(6, 6, 6)
    assert ctx.host is not None
    lengths = [1, 3, 16, 17, 30, 48]
    table = torch.arange(1, 19).view(6, 3).to(torch.int32)
    ctx.groups[0].table_RB = table
    ctx.kv_len_R = torch.tensor(lengths, dtype=torch.int32)
    ctx.host.kv_len, ctx.host.tables = lengths, [table.tolist()]
    op = ops.Attend(6, 2, 16, 16, 0.25, window=window)
    check(op, (cache(torch.float32, window),), (torch.randn(6, 6, 16),), ctx)


@DTYPES
@pytest.mark.parametrize("normed", [False, True])
def test_the_fused_prologue_writes_what_its_sequence_writes(dtype: torch.dtype, normed: bool) -> None:
    ctx = make_batch(7, 2, 2)
    slot = cache(dtype, None)
    before = [plane.clone() for plane in slot.planes]
    q, k, v = (torch.randn(7, heads, 16).to(dtype) for heads in (6, 2, 2))
    angle = torch.randn(7, 8)
    norms = (Vector(torch.randn(16).to(dtype)), Vector(torch.randn(16).to(dtype))) if normed else ()
    op = ops.RotateWrite(ops.Rotate(), ops.RmsNorm(1e-5) if normed else None)
    inputs = (q, k, v, torch.cat((angle.cos(), angle.sin()), 1))
    planes = []
    for backend in (ReferenceBackend(), TorchBackend()):
        for plane, old in zip(slot.planes, before, strict=True):
            plane.copy_(old)
        bound = BoundOp(op, (slot, *norms), Runtime(torch.device("cpu")))
        bound.bind(backend.candidates(op))
        bound.run(ctx, inputs, bound.allocate(inputs))
        planes.append([plane.clone() for plane in slot.planes])
    check(op, (slot, *norms), inputs, ctx)
    for a, b in zip(*planes, strict=True):
        torch.testing.assert_close(a.float(), b.float(), atol=TOLERANCE[dtype], rtol=TOLERANCE[dtype])
        assert not torch.equal(a, before[0])
