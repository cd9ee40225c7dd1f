# SPDX-License-Identifier: Apache-2.0
"""Norms, rotation, elementwise ops and look-ups against their references, on every instruction set."""

from __future__ import annotations

import pytest
import torch
from cpu_kit import close, matrix, native, param, run, same_as_reference
from torch import Tensor

from tramontane.ops import (
    ACTIVATIONS,
    Activate,
    Add,
    AddRmsNorm,
    Embed,
    GatedActivate,
    LayerNorm,
    Multiply,
    RmsNorm,
    RopeAngles,
    Rotate,
    Scale,
    Softcap,
    TakeRows,
)
from tramontane.testing.tiny import make_batch
from tramontane_backend_cpu.kernel import Engine
from tramontane_backend_cpu.kernels import make

DTYPES = (torch.float32, torch.bfloat16)
SHAPES = ((1, 64), (3, 7), (5, 130), (17, 1), (70, 33))


def random(*shape: int, dtype: torch.dtype = torch.float32, seed: int = 0) -> Tensor:
    return (torch.randn(*shape, generator=torch.Generator().manual_seed(seed)) * 2).to(dtype)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", SHAPES)
def test_elementwise(isa: str, engine: Engine, shape: tuple[int, int], dtype: torch.dtype) -> None:
    x, y = random(*shape, dtype=dtype), random(*shape, dtype=dtype, seed=1)
    same_as_reference(Add(), (), engine, (x, y))
    same_as_reference(Scale(0.37), (), engine, (x,))
    same_as_reference(Softcap(3.0), (), engine, (x,))
    for other in (y, y[:1], y[:, :1], y[0]):
        same_as_reference(Multiply(), (), engine, (x, other))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("act", sorted(ACTIVATIONS))
def test_activations(isa: str, engine: Engine, act: str, dtype: torch.dtype) -> None:
    x = torch.cat((random(3, 70), torch.linspace(-100, 100, 210).view(3, 70))).to(dtype)
    same_as_reference(Activate(act), (), engine, (x,))
    same_as_reference(GatedActivate(act), (), engine, (x,))


def test_elementwise_of_nothing_and_of_infinity(isa: str, engine: Engine) -> None:
    assert run(Add(), (), engine, (torch.empty(0, 5), torch.empty(0, 5)))[0].shape == (0, 5)
    x = torch.tensor([[torch.inf, -torch.inf, torch.nan, 0.0]])
    for act in ("silu", "sigmoid", "gelu_tanh"):
        (ours,) = run(Activate(act), (), engine, (x,))
        assert ours[0, 2].isnan()
        close(ours[:, 3], Activate(act).reference(None, (), x)[0][:, 3])
    assert run(Softcap(2.0), (), engine, (x,))[0][0, :2].tolist() == [2.0, -2.0]


@pytest.mark.parametrize("late", [False, True])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", SHAPES)
def test_norms(isa: str, engine: Engine, shape: tuple[int, int], dtype: torch.dtype, late: bool) -> None:
    x, residual = random(*shape, dtype=dtype), random(*shape, dtype=dtype, seed=1)
    wide = torch.float32 if late else dtype
    weight, bias = param(1 + 0.1 * random(shape[1], dtype=wide)), param(random(shape[1], dtype=wide))
    same_as_reference(RmsNorm(1e-6, late_cast=late), (weight,), engine, (x,))
    same_as_reference(RmsNorm(1e-6, scaled=False), (), engine, (x,))
    _, total = same_as_reference(AddRmsNorm(1e-6, late_cast=late), (weight,), engine, (x, residual))
    assert torch.equal(total, x + residual), "the residual stream is exact"
    same_as_reference(LayerNorm(1e-6), (weight, bias), engine, (x,))
    same_as_reference(LayerNorm(1e-6, bias=False), (weight,), engine, (x,))


def test_norm_of_the_heads_in_a_wider_row(isa: str, engine: Engine) -> None:
    qkv = random(6, 100)
    q_THD = qkv[:, 10:80].unflatten(1, (7, 10))
    same_as_reference(RmsNorm(1e-5), (param(random(10)),), engine, (q_THD,))


def test_only_layer_norms_have_weights_that_differ_by_head(isa: str, engine: Engine) -> None:
    weight, x = param(random(7, 10)), random(6, 7, 10)
    same_as_reference(LayerNorm(1e-6, bias=False), (weight,), engine, (x,))
    for op in (RmsNorm(1e-6), AddRmsNorm(1e-6)):
        assert make(op, (weight,), engine) == "its weights differ by head"


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("stored", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("shape", [(50, 64), (37, 45), (1, 3)])
def test_embedding(isa: str, engine: Engine, shape: tuple[int, int], stored: torch.dtype, dtype: torch.dtype) -> None:
    table = matrix(random(*shape, dtype=stored), [shape[0]], dtype)
    ids = torch.tensor([0, shape[0] - 1, 0, shape[0] // 2, *range(min(9, shape[0]))])
    (ours,) = run(Embed(shape[1], dtype), (table,), engine, (ids,), make_batch(11, 5, 2))
    assert torch.equal(ours, random(*shape, dtype=stored)[ids].to(dtype)), "looked up, not computed"
    same_as_reference(Embed(shape[1], dtype, scale=7.9), (table,), engine, (ids,), make_batch(11, 5, 2))


def test_an_id_outside_the_table_is_an_error_and_no_read(isa: str, engine: Engine) -> None:
    table = matrix(random(50, 64), [50], torch.float32)
    for wrong in (50, -1, 1 << 40):
        with pytest.raises(IndexError, match="outside"):
            run(Embed(64, torch.float32), (table,), engine, (torch.tensor([0, wrong]),), make_batch(11, 5, 2))
        with pytest.raises(IndexError, match="outside"):
            run(TakeRows(), (), engine, (random(50, 4), torch.tensor([wrong])))


def test_rows(isa: str, engine: Engine) -> None:
    wide = random(12, 40)
    same_as_reference(TakeRows(), (), engine, (wide[:, 3:26], torch.tensor([11, 0, 5, 5])))
    same_as_reference(TakeRows(), (), engine, (wide.bfloat16(), torch.tensor([], dtype=torch.int64)))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("interleaved", [False, True])
@pytest.mark.parametrize(("dim", "pairs"), [(16, 8), (24, 12), (10, 5), (40, 9), (128, 64)])
def test_rotation(isa: str, engine: Engine, dim: int, pairs: int, interleaved: bool, dtype: torch.dtype) -> None:
    qkv = random(9, 6 * dim, dtype=dtype)
    q, k = qkv[:, : 4 * dim].unflatten(1, (4, dim)), qkv[:, 4 * dim :].unflatten(1, (2, dim))
    same_as_reference(Rotate(interleaved), (), engine, (q, k, random(9, 2 * pairs)))


@pytest.mark.parametrize("sections", [None, (2, 3, 1)])
def test_angles(isa: str, engine: Engine, sections: tuple[int, ...] | None) -> None:
    table = param(random(30, 12))
    positions = torch.tensor([[0, 29, 3, 3], [1, 2, 28, 0], [5, 5, 5, 29]])[: 3 if sections else 1]
    (ours,) = run(RopeAngles(6, sections), (table,), engine, (positions,))
    assert torch.equal(ours, RopeAngles(6, sections).reference(None, (table,), positions)[0])


def test_what_the_kernel_cannot_take_still_runs(isa: str, engine: Engine, caplog: pytest.LogCaptureFixture) -> None:
    x = random(4, 6)
    for inputs in ((x.half(), x.half()), (x.t(), random(6, 4)), (x.double(), x.double())):
        kernel = native(Add(), (), engine)
        out = torch.empty(inputs[0].shape, dtype=inputs[0].dtype)
        kernel(None, inputs, (out,))
        assert torch.equal(out, inputs[0] + inputs[1])
