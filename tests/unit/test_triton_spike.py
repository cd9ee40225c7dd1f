# SPDX-License-Identifier: Apache-2.0
"""A two-layer quantized step lowered by hand to Triton, run by its interpreter: does the op table fit such a backend?

Attention projections are GGML Q8_0, the feed-forward is affine with 4 bits. The products and the norms are Triton
kernels made once per bound op from the op's record and the weights' canonical fields; what is left runs on stock torch.
See ``docs/decisions/0015-the-op-table-was-tried-on-two-lowerings.md``.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

os.environ.setdefault("TRITON_INTERPRET", "1")

import pytest
import torch
from attrs import define
from torch import Tensor

triton = pytest.importorskip("triton", reason="triton has packages for Linux only")
tl = pytest.importorskip("triton.language")

from tramontane.backends.base import CanonicalStored  # noqa: E402
from tramontane.backends.torch import TorchBackend  # noqa: E402
from tramontane.batch import Ctx  # noqa: E402
from tramontane.ops import AddRmsNorm, Kernel, KernelMaker, Linear, Op, RmsNorm  # noqa: E402
from tramontane.schemes import Affine, Dense, Ggml, Scheme  # noqa: E402
from tramontane.tape.capture import capture  # noqa: E402
from tramontane.tape.ir import OpNode  # noqa: E402
from tramontane.testing.tiny import BLOCK, make_batch, make_tiny  # noqa: E402


@triton.jit
def product_q8_0(x, w, y, tokens, inputs, outputs, x_stride, y_stride, w_stride, BM: tl.constexpr, BN: tl.constexpr):
    """y = x W^T for rows of 34-byte blocks: a float16 scale and 32 signed bytes."""
    m = tl.program_id(0) * BM + tl.arange(0, BM)
    n = tl.program_id(1) * BN + tl.arange(0, BN)
    inside = tl.arange(0, 32)
    total = tl.zeros((BM, BN), tl.float32)
    for block in range(inputs // 32):
        at = w + n * w_stride + block * 34
        low = tl.load(at, mask=n < outputs, other=0).to(tl.uint16)
        high = tl.load(at + 1, mask=n < outputs, other=0).to(tl.uint16)
        scale = (low | (high << 8)).to(tl.float16, bitcast=True).to(tl.float32)
        codes = tl.load(at[None, :] + 2 + inside[:, None], mask=n[None, :] < outputs, other=0).to(tl.int8, bitcast=True)
        part = tl.load(x + m[:, None] * x_stride + block * 32 + inside[None, :], mask=m[:, None] < tokens, other=0.0)
        total += tl.dot(part, codes.to(tl.float32)) * scale[None, :]
    tl.store(y + m[:, None] * y_stride + n[None, :], total, mask=(m[:, None] < tokens) & (n[None, :] < outputs))


@triton.jit
def product_affine4(
    x, w, scale, zero, y, tokens, inputs, outputs, x_stride, y_stride, w_stride, s_stride,
    G: tl.constexpr, BM: tl.constexpr, BN: tl.constexpr,
):  # fmt: skip
    """y = x W^T for two codes a byte, lowest bits first, one scale and zero point per G inputs."""
    m = tl.program_id(0) * BM + tl.arange(0, BM)
    n = tl.program_id(1) * BN + tl.arange(0, BN)
    inside = tl.arange(0, G)
    total = tl.zeros((BM, BN), tl.float32)
    for group in range(inputs // G):
        at = w + n[None, :] * w_stride + group * (G // 2) + (inside // 2)[:, None]
        codes = (tl.load(at, mask=n[None, :] < outputs, other=0) >> ((inside % 2) * 4)[:, None]) & 15
        s = tl.load(scale + n * s_stride + group, mask=n < outputs, other=0.0).to(tl.float32)
        z = tl.load(zero + n * s_stride + group, mask=n < outputs, other=0).to(tl.float32)
        part = tl.load(x + m[:, None] * x_stride + group * G + inside[None, :], mask=m[:, None] < tokens, other=0.0)
        total += tl.dot(part, codes.to(tl.float32) - z[None, :]) * s[None, :]
    tl.store(y + m[:, None] * y_stride + n[None, :], total, mask=(m[:, None] < tokens) & (n[None, :] < outputs))


@triton.jit
def add_norm(x, residual, weight, y, total, width, eps, ADD: tl.constexpr, B: tl.constexpr):
    """One row: y = rms_norm(x + residual) * weight, and the sum where there is one."""
    row, i = tl.program_id(0), tl.arange(0, B)
    value = tl.load(x + row * width + i, mask=i < width, other=0.0)
    if ADD:
        value += tl.load(residual + row * width + i, mask=i < width, other=0.0)
        tl.store(total + row * width + i, value, mask=i < width)
    scale = 1.0 / tl.sqrt(tl.sum(value * value) / width + eps)
    tl.store(y + row * width + i, value * scale * tl.load(weight + i, mask=i < width, other=0.0), mask=i < width)


def linear(op: Op, weights: Sequence[Any]) -> Kernel | str:
    """A product per part, specialized on its scheme, side by side in the output."""
    stored = weights[0].storage()
    if not isinstance(op, Linear) or not isinstance(stored, CanonicalStored) or op.bias:
        return "made for quantized parts without bias"
    sizes = [part.out_features for part in weights[0].parts]
    parts = [(scheme, stored.fields[index]) for index, scheme in enumerate(weights[0].schemes)]

    def run(ctx: Ctx | None, inputs: Sequence[Tensor], outputs: Sequence[Tensor]) -> None:
        (x,), (y,) = inputs, outputs
        for (scheme, fields), out in zip(parts, y.split(sizes, dim=-1), strict=True):
            launch(scheme, fields, x, out)

    return run


def launch(scheme: Scheme, fields: Any, x: Tensor, y: Tensor) -> None:
    tokens, width = x.shape
    grid = (triton.cdiv(tokens, 16), triton.cdiv(y.shape[1], 32))
    common = (tokens, width, y.shape[1], x.stride(0), y.stride(0), fields["weight"].stride(0))
    if isinstance(scheme, Ggml):
        product_q8_0[grid](x, fields["weight"], y, *common, BM=16, BN=32)
    else:
        assert isinstance(scheme, Affine)
        stride = fields["scale"].stride(0)
        weight = (fields["weight"], fields["scale"], fields["zero"])
        product_affine4[grid](x, *weight, y, *common, stride, G=scheme.group, BM=16, BN=32)


def norm(op: Op, weights: Sequence[Any]) -> Kernel | str:
    """Both norms by one kernel."""
    if not isinstance(op, RmsNorm | AddRmsNorm):
        return "made for RMS norms"
    weight, eps, adds = weights[0].tensor, op.eps, isinstance(op, AddRmsNorm)

    def run(ctx: Ctx | None, inputs: Sequence[Tensor], outputs: Sequence[Tensor]) -> None:
        x = inputs[0].contiguous()
        width = x.shape[-1]
        add_norm[(x.numel() // width,)](
            x, inputs[-1], weight, outputs[0], outputs[-1], width, eps, ADD=adds, B=triton.next_power_of_2(width)
        )

    return run


@define(eq=False)
class SpikeBackend(TorchBackend):
    """Triton for products and norms, stock torch for the rest."""

    name: str = "spike"

    def candidates(self, op: Op) -> Sequence[tuple[str, KernelMaker]]:
        if op.name in ("linear_gated", "rotate_write"):
            return ()  # nothing here is better than the sequences, so the rules leave them
        own = {"linear": linear, "rms_norm": norm, "add_rms_norm": norm}.get(op.name)
        return ((f"triton.{op.name}", own), *super().candidates(op)) if own else super().candidates(op)


def scheme_of(path: str) -> Scheme:
    if ".attn." in path:
        return Ggml("q8_0")
    return Affine(bits=4, group=32, zero="int") if ".mlp." in path else Dense(torch.float32)


@pytest.mark.full  # the backend that came of it has tests of its own
def test_the_op_table_fits_a_triton_backend() -> None:
    spike, stock = (make_tiny(backend, scheme_of=scheme_of) for backend in (SpikeBackend(), TorchBackend()))
    chosen = {bound.choice.kernel for bound in spike.blueprint.ops if bound.choice is not None}
    assert {"triton.linear", "triton.rms_norm", "triton.add_rms_norm"} <= chosen
    with torch.inference_mode():
        tape, program = capture(
            spike.body, spike.blueprint.runtime, spike.backend, [BLOCK], max_tokens=32, max_outputs=32,
            candidates=spike.backend.candidates,
        )  # fmt: skip
        assert tape.segments() == []
        for extent in ((19, 3, 2), (1, 1, 1)):
            ctx = make_batch(*extent)
            eager = spike.body(ctx).clone()
            (captured,) = program.run(ctx)
            assert torch.equal(eager, captured)
            torch.testing.assert_close(eager, stock.body(make_batch(*extent)), atol=2e-4, rtol=2e-4)
    products = [n for n in tape.nodes if isinstance(n, OpNode) and n.call.op.name in ("linear", "linear_gated")]
    assert len(products) == 8
