# SPDX-License-Identifier: Apache-2.0
"""Norms, gates and words of scales by Triton's interpreter, and where the backend runs at all."""

from __future__ import annotations

import pytest

pytest.importorskip("triton", reason="triton has packages for Linux only")

import torch
import triton
import triton.language as tl
from cuda_kit import BFLOAT16, close, draw, param, run

from tramontane.errors import PlanError
from tramontane.ops import ACTIVATIONS, AddRmsNorm, GatedActivate, RmsNorm
from tramontane_backend_cuda.backend import CudaBackend
from tramontane_backend_cuda.words import load_word, word_part


@triton.jit
def take_apart(x, y, COUNT: tl.constexpr):
    """Eight words of x, number by number."""
    kind: tl.constexpr = x.dtype.element_ty
    n = tl.arange(0, 8)
    word = load_word(x + n * COUNT, COUNT)
    for place in tl.static_range(COUNT):
        tl.store(y + n * COUNT + place, word_part(word, place, kind, COUNT))


@pytest.mark.parametrize(("dtype", "most"), [
    (torch.uint8, 8), (torch.int8, 8), (torch.float16, 4), (torch.bfloat16, 4), (torch.float32, 2)])  # fmt: skip
def test_words_give_back_what_they_hold(dtype: torch.dtype, most: int) -> None:
    for count in (one for one in (1, 2, 4, 8) if one <= most):
        x = (draw(8 * count) * 100).to(dtype)
        y = torch.zeros_like(x)
        take_apart[(1,)](x, y, COUNT=count)
        assert torch.equal(y, x)
        assert len(x.unique()) > 4


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


def test_a_cpu_is_refused_without_the_interpreter(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRITON_INTERPRET", "0")
    with pytest.raises(PlanError, match="does not run on cpu"):
        CudaBackend(torch.device("cpu"))
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert "no CUDA device" in (CudaBackend.probe() or "")
