# SPDX-License-Identifier: Apache-2.0
"""Lowered steps: one native call where everything is native, cuts where it is not, the same numbers as eagerly."""

from __future__ import annotations

import logging

import pytest
import torch
from cpu_kit import close
from torch import Tensor

from tramontane.backends.reference import ReferenceBackend
from tramontane.ops import BoundOp, Op
from tramontane.tape.capture import capture
from tramontane.tape.ir import OpNode
from tramontane.testing.tiny import BLOCK, Between, Tiny, make_batch, make_tiny
from tramontane_backend_cpu.backend import CpuBackend
from tramontane_backend_cpu.kernel import Engine, NativeKernel
from tramontane_backend_cpu.library import pool
from tramontane_backend_cpu.program import NativeProgram

BATCHES = ((37, 9, 4), (1, 1, 1), (11, 5, 2), (64, 64, 1), (6, 6, 6), (5, 0, 1))
"""(T, L, R)"""


def lowered(tiny: Tiny) -> NativeProgram:
    with torch.inference_mode():
        _, program = capture(
            tiny.body, tiny.blueprint.runtime, tiny.backend, [BLOCK], max_tokens=64, max_outputs=64,
            candidates=tiny.backend.candidates,
        )  # fmt: skip
    assert isinstance(program, NativeProgram)
    return program


def assert_captured_is_eager(tiny: Tiny, program: NativeProgram) -> None:
    with torch.inference_mode():
        for extent in (*BATCHES, *BATCHES):
            ctx = make_batch(*extent)
            eager = tiny.body(ctx).clone()
            (captured,) = program.run(ctx)
            assert torch.equal(eager, captured), extent


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("window", [None, 5])
def test_captured_is_eager_bit_for_bit(isa: str, engine: Engine, window: int | None, dtype: torch.dtype) -> None:
    tiny = make_tiny(CpuBackend(engine=engine), window=window, dtype=dtype)
    program = lowered(tiny)
    assert program.native, "the whole step is one call"
    assert_captured_is_eager(tiny, program)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_it_agrees_with_the_reference(isa: str, engine: Engine, dtype: torch.dtype) -> None:
    ctx = make_batch(37, 9, 4)
    with torch.inference_mode():
        ours = make_tiny(CpuBackend(engine=engine), dtype=dtype).body(ctx)
        theirs = make_tiny(ReferenceBackend(), dtype=dtype).body(ctx)
    close(ours, theirs, 2e-5 if dtype is torch.float32 else 4e-2)


def test_the_number_of_threads_changes_nothing() -> None:
    results = []
    for threads in (1, 2, 3, 4):
        program = lowered(make_tiny(CpuBackend(engine=Engine(pool(threads)))))
        results.append([program.run(make_batch(*extent))[0].clone() for extent in BATCHES])
    for other in results[1:]:
        assert all(torch.equal(a, b) for a, b in zip(results[0], other, strict=True))


def _allocates(h: Tensor, ctx: object) -> Tensor:
    return torch.cumsum(h, dim=-1) * torch.arange(h.shape[0]).unsqueeze(1).to(h.dtype) / 1000


def _writes_in_place(h: Tensor, ctx: object) -> Tensor:
    return h.mul_(0.5).add_(torch.ones_like(h))


def _writes_through_a_view(h: Tensor, ctx: object) -> Tensor:
    h[:, ::2].mul_(2)
    h.view(h.shape[0], 4, 16)[:, 1].zero_()
    return h


def _reads_the_batch(h: Tensor, ctx: object) -> Tensor:
    return h + ctx.positions_KT[0].unsqueeze(1).to(h.dtype) * 0.01 + ctx.seq_of_T.unsqueeze(1) * 0.1  # type: ignore[attr-defined]


def _shapes_with_tokens(h: Tensor, ctx: object) -> Tensor:
    return h.view(h.shape[0] * 4, 16).repeat_interleave(2, dim=0).view(h.shape[0], 128)[:, ::2].contiguous()


@pytest.mark.parametrize(
    "between", [_allocates, _writes_in_place, _writes_through_a_view, _reads_the_batch, _shapes_with_tokens]
)
def test_torch_code_of_a_models_own_cuts_the_program_and_stays_right(between: Between, engine: Engine) -> None:
    tiny = make_tiny(CpuBackend(engine=engine), between)
    program = lowered(tiny)
    assert not program.native
    assert_captured_is_eager(tiny, program)


def test_plain_views_cut_nothing(engine: Engine) -> None:
    tiny = make_tiny(CpuBackend(engine=engine), lambda h, ctx: h.view(h.shape[0], 2, 32).flatten(1))
    program = lowered(tiny)
    assert program.native
    assert_captured_is_eager(tiny, program)


class WithoutAttention(CpuBackend):
    """As if this backend had no native attention."""

    def candidates(self, op: Op) -> object:  # type: ignore[override]
        found = super().candidates(op)
        return found[1:] if op.name == "attend" else found


def test_an_op_without_a_native_kernel_cuts_the_program_and_is_named(
    engine: Engine, caplog: pytest.LogCaptureFixture
) -> None:
    tiny = make_tiny(WithoutAttention(engine=engine))
    with caplog.at_level(logging.WARNING):
        program = lowered(tiny)
    assert [type(piece).__name__ for piece in program.pieces] == ["Stretch", "OpNode", "Stretch", "OpNode", "Stretch"]
    assert sum("attend runs outside" in message for message in caplog.messages) == 1
    with torch.inference_mode():
        for extent in BATCHES[:5]:
            ctx = make_batch(*extent)
            eager = tiny.body(ctx).clone()
            close(program.run(ctx)[0], eager)


def test_a_wrong_token_id_is_an_error_and_the_program_lives_on() -> None:
    tiny = make_tiny(CpuBackend(engine=Engine(pool(2))))
    program = lowered(tiny)
    ctx = make_batch(11, 5, 2)
    expected = program.run(ctx)[0].clone()
    ctx.ids_T[3] = 50
    with pytest.raises(IndexError, match="captured step"):
        program.run(ctx)
    ctx.ids_T[3] = 3 * 7 % 50
    assert torch.equal(program.run(ctx)[0], expected)


def test_every_kernel_of_the_tiny_model_is_native(engine: Engine) -> None:
    tiny = make_tiny(CpuBackend(engine=engine))
    program = lowered(tiny)
    calls: list[BoundOp] = [node.call for node in program.tape.nodes if isinstance(node, OpNode)]
    assert all(isinstance(call.kernel, NativeKernel) for call in (*calls, *tiny.blueprint.ops))
