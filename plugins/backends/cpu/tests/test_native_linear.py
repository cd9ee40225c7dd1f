# SPDX-License-Identifier: Apache-2.0
"""Products against their references: few rows and many, every type, odd shapes, parts, biases, gates."""

from __future__ import annotations

import pytest
import torch
from cpu_kit import close, matrix, native, param, run, same_as_reference
from torch import Tensor

from tramontane.ops import GatedActivate, Linear, LinearGated
from tramontane_backend_cpu.kernel import Engine
from tramontane_backend_cpu.library import pool

TYPES = (
    (torch.float32, torch.float32),
    (torch.bfloat16, torch.bfloat16),
    (torch.bfloat16, torch.float32),
    (torch.float16, torch.float32),
    (torch.float16, torch.bfloat16),
    (torch.float32, torch.bfloat16),
)
"""(weights, activations)"""
ROWS = (1, 2, 3, 4, 5, 8, 17, 33, 100)
SHAPES = ((64, 64), (16, 32), (37, 45), (200, 96), (1, 1), (130, 7))
"""(outputs, inputs)"""


def random(*shape: int, dtype: torch.dtype = torch.float32, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)).to(dtype)


@pytest.mark.parametrize(("stored", "dtype"), TYPES)
@pytest.mark.parametrize("shape", SHAPES)
def test_products(isa: str, engine: Engine, shape: tuple[int, int], stored: torch.dtype, dtype: torch.dtype) -> None:
    outputs, inputs = shape
    weight = matrix(random(outputs, inputs, dtype=stored), [outputs], dtype)
    for rows in ROWS:
        same_as_reference(Linear(outputs), (weight,), engine, (random(rows, inputs, dtype=dtype, seed=rows),))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("sizes", [(48, 16, 16), (10, 3, 70), (16,)])
def test_parts_bias_and_a_wider_result(isa: str, engine: Engine, sizes: tuple[int, ...], dtype: torch.dtype) -> None:
    outputs = sum(sizes)
    weights = (matrix(random(outputs, 50, dtype=dtype), sizes, dtype), param(random(outputs, dtype=dtype, seed=2)))
    wide = random(40, 90, dtype=dtype)
    for rows in (1, 6, 40):
        op = Linear(outputs, bias=True, out_dtype=torch.float32)
        same_as_reference(op, weights, engine, (wide[:rows, 17:67],))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("act", ["silu", "gelu_tanh", "relu2"])
@pytest.mark.parametrize("sizes", [(64,), (40, 40), (16, 48, 16, 48)])
def test_gate_is_the_sequence_bit_for_bit(
    isa: str, engine: Engine, sizes: tuple[int, ...], act: str, dtype: torch.dtype
) -> None:
    outputs = sum(sizes)
    weights = (matrix(random(outputs, 72, dtype=dtype), sizes, dtype), param(random(outputs, dtype=dtype, seed=2)))
    linear, gate = Linear(outputs, bias=True), GatedActivate(act)
    for rows in (1, 5, 50):
        x = random(rows, 72, dtype=dtype, seed=rows)
        (fused,) = same_as_reference(LinearGated(linear, gate), weights, engine, (x,))
        assert torch.equal(fused, run(gate, (), engine, run(linear, weights, engine, (x,)))[0])


def test_a_gate_over_halves_that_are_no_panels_is_refused(engine: Engine) -> None:
    from tramontane_backend_cpu.kernels import make

    weight = matrix(random(24, 32), [24], torch.float32)
    reason = make(LinearGated(Linear(24), GatedActivate("silu")), (weight,), engine)
    assert isinstance(reason, str)
    assert "halves" in reason


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_results_do_not_depend_on_the_number_of_threads(isa: str, dtype: torch.dtype) -> None:
    weight = matrix(random(700, 352, dtype=dtype), [300, 400], dtype)
    for rows in (1, 7, 300):
        x = random(rows, 352, dtype=dtype)
        first, *others = (run(Linear(700), (weight,), Engine(pool(threads)), (x,))[0] for threads in (1, 2, 3, 4))
        assert all(torch.equal(first, other) for other in others)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_long_products_are_cut_into_chunks_of_rows(isa: str, engine: Engine, dtype: torch.dtype) -> None:
    weight = matrix(random(48, 8192, dtype=dtype), [48], dtype)
    same_as_reference(Linear(48), (weight,), engine, (random(250, 8192, dtype=dtype),))


def test_no_rows(isa: str, engine: Engine) -> None:
    weight = matrix(random(32, 32), [32], torch.float32)
    assert run(Linear(32), (weight,), engine, (torch.empty(0, 32),))[0].shape == (0, 32)


def test_weights_come_back_as_they_were(isa: str) -> None:
    for dtype in (torch.float32, torch.bfloat16, torch.float16):
        value = random(70, 51, dtype=dtype)
        stored = matrix(value, [20, 50], torch.float32).stored
        assert stored is not None
        assert torch.equal(stored.unpack(0)["weight"], value[:20])
        assert torch.equal(stored.unpack(1)["weight"], value[20:])
        close(stored.dequantize(), value.float())


def test_weights_are_converted_while_they_are_stored(isa: str) -> None:
    special = torch.tensor([0.0, -0.0, 1e-40, 65504.0, 65520.0, 1e6, torch.inf, -torch.inf, torch.nan, 6e-8, 1.0039])
    value = torch.cat((special, random(501))).view(32, 16)
    for dtype in (torch.float32, torch.bfloat16, torch.float16):
        stored = matrix(value, [32], torch.float32).stored
        for source in (value, value.to(torch.float64), value.t().contiguous().t()):
            target = matrix(torch.zeros(32, 16, dtype=dtype), [32], torch.float32).stored
            assert stored is not None
            assert target is not None
            target.fill(0, {"weight": source})
            ours, theirs = target.unpack(0)["weight"], value.to(dtype)
            tiny = theirs.float().abs() < torch.finfo(dtype).tiny  # the processor's own conversion drops subnormals
            assert torch.equal(ours.isnan(), theirs.isnan())
            assert torch.equal(ours[~tiny].nan_to_num(), theirs[~tiny].nan_to_num())


def test_activations_that_native_kernels_do_not_know_run_on_stock_torch(engine: Engine) -> None:
    weight = matrix(random(32, 32), [32], torch.float32)
    kernel = native(Linear(32), (weight,), engine)
    x, out = random(3, 32).double(), torch.empty(3, 32, dtype=torch.float64)
    kernel(None, (x,), (out,))
    close(out.float(), x.float() @ random(32, 32).T)
