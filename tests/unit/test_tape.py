# SPDX-License-Identifier: Apache-2.0
"""The tape: recording, symbolic sizes, the arena, rewrite rules, code of a model's own."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch

from tramontane.backends.reference import InvariantBackend, ReferenceBackend
from tramontane.backends.torch import TorchBackend
from tramontane.errors import CaptureRefused
from tramontane.ops import RotateWrite
from tramontane.tape.arena import plan_arena
from tramontane.tape.capture import capture, record
from tramontane.tape.ir import Kind, OpNode, Size, Tape, resolve
from tramontane.tape.program import Program
from tramontane.tape.record import Recorder
from tramontane.testing.tiny import BLOCK, Between, Tiny, make_batch, make_tiny

BATCHES = ((37, 9, 4), (1, 1, 1), (11, 5, 2), (64, 64, 1), (6, 6, 6))
"""(T, L, R): none but the third has the size of a recording."""


def capture_tiny(tiny: Tiny) -> tuple[Tape, Program]:
    with torch.inference_mode():
        tape, program = capture(
            tiny.body,
            tiny.blueprint.runtime,
            tiny.backend,
            [BLOCK],
            max_tokens=64,
            max_outputs=64,
            candidates=tiny.backend.candidates,
        )
    assert isinstance(program, Program)
    return tape, program


@pytest.mark.parametrize("backend", [ReferenceBackend, InvariantBackend, TorchBackend])
@pytest.mark.parametrize("window", [None, 5])
def test_captured_equals_eager_on_other_batches(backend: type, window: int | None) -> None:
    tiny = make_tiny(backend(), window=window)
    _, program = capture_tiny(tiny)
    with torch.inference_mode():
        for extent in (*BATCHES, *BATCHES):  # the second round replays bound programs
            ctx = make_batch(*extent)
            eager = tiny.body(ctx).clone()
            (captured,) = program.run(ctx)
            assert torch.equal(eager, captured), extent


def test_the_backends_agree() -> None:
    ctx = make_batch(37, 9, 4)
    with torch.inference_mode():
        results = [make_tiny(backend()).body(ctx) for backend in (ReferenceBackend, InvariantBackend, TorchBackend)]
    for other in results[1:]:
        torch.testing.assert_close(results[0], other, atol=2e-5, rtol=1e-5)


def test_recording_does_not_bring_the_compiler() -> None:
    assert not hasattr(Recorder.__torch_dispatch__, "__wrapped__"), "torch's guard, which imports torch._dynamo"


def test_sizes_follow_tokens_and_outputs() -> None:
    tape, _ = capture_tiny(make_tiny(TorchBackend()))
    embedded = next(n for n in tape.nodes if isinstance(n, OpNode) and n.call.op.name == "embed")
    assert tape.values[embedded.outputs[0]].shape == (Size(tokens=1), 64)
    assert tape.values[tape.results[0]].shape == (Size(outputs=1), 64)


def test_rules_leave_one_look_up_and_no_bare_rotation() -> None:
    tape, _ = capture_tiny(make_tiny(TorchBackend()))
    names = [node.call.op.name for node in tape.nodes if isinstance(node, OpNode)]
    assert names.count("rope_angles") == 1
    assert names.count("rotate_write") == names.count("linear_gated") == names.count("attend") == 2
    assert not {"rotate", "cache_write", "gated_activate"} & set(names)
    fused = next(n.call.op for n in tape.nodes if isinstance(n, OpNode) and n.call.op.name == "rotate_write")
    assert isinstance(fused, RotateWrite)
    assert fused.norm is not None, "the norms of queries and keys belong to the prologue"


def test_without_kernels_for_fused_ops_nothing_is_fused() -> None:
    tape, _ = capture_tiny(make_tiny(ReferenceBackend()))
    names = {node.call.op.name for node in tape.nodes if isinstance(node, OpNode)}
    assert {"rotate", "cache_write", "gated_activate"} <= names


def test_values_alive_together_never_overlap() -> None:
    tape, _ = capture_tiny(make_tiny(TorchBackend()))
    plan = plan_arena(tape, 64, 64)
    first = {v: i for i, node in enumerate(tape.nodes) for v in node.outputs if tape.values[v].kind is Kind.ARENA}
    last = dict(first)
    for index, node in enumerate(tape.nodes):
        last.update({tape.base(v): index for v in node.inputs if tape.base(v) in first})
    last.update({tape.base(v): len(tape.nodes) for v in tape.results})
    spans = {}
    for value, offset in plan.offsets.items():
        size = int(np.prod(resolve(tape.values[value].shape, 64, 64))) * tape.values[value].dtype.itemsize
        spans[value] = (offset, offset + size)
    for a, b in itertools.combinations(spans, 2):
        if first[a] <= last[b] and first[b] <= last[a]:
            assert spans[a][1] <= spans[b][0] or spans[b][1] <= spans[a][0]
    total = sum(end - start for start, end in spans.values())
    assert max(end for _, end in spans.values()) <= plan.nbytes < total / 2, "places are used again"


def _allocates(h: torch.Tensor, ctx: object) -> torch.Tensor:
    return torch.cumsum(h, dim=-1) * torch.arange(h.shape[0]).unsqueeze(1).to(h.dtype) / 1000


def _writes_in_place(h: torch.Tensor, ctx: object) -> torch.Tensor:
    return h.mul_(0.5).add_(torch.ones_like(h))


def _reads_the_batch(h: torch.Tensor, ctx: object) -> torch.Tensor:
    return h + ctx.positions_KT[0].unsqueeze(1).to(h.dtype) * 0.01 + ctx.seq_of_T.unsqueeze(1) * 0.1  # type: ignore[attr-defined]


def _shapes_with_tokens(h: torch.Tensor, ctx: object) -> torch.Tensor:
    return h.view(h.shape[0] * 4, 16).repeat_interleave(2, dim=0).view(h.shape[0], 128)[:, ::2].contiguous()


@pytest.mark.parametrize("between", [_allocates, _writes_in_place, _reads_the_batch, _shapes_with_tokens])
def test_code_of_a_models_own_cuts_segments_and_stays_right(between: Between) -> None:
    tiny = make_tiny(TorchBackend(), between)
    tape, program = capture_tiny(tiny)
    assert tape.segments(), "the torch calls are on the tape, by name"
    with torch.inference_mode():
        for extent in (*BATCHES, *BATCHES):
            ctx = make_batch(*extent)
            eager = tiny.body(ctx).clone()
            (captured,) = program.run(ctx)
            assert torch.equal(eager, captured), extent


def test_plain_views_cut_nothing() -> None:
    tape, _ = capture_tiny(make_tiny(TorchBackend(), lambda h, ctx: h.view(h.shape[0], 2, 32).flatten(1)))
    assert tape.segments() == []


def _asks_for_a_number(h: torch.Tensor, ctx: object) -> torch.Tensor:
    return h * float(h.abs().max().item() > 0)


def _branches_on_size(h: torch.Tensor, ctx: object) -> torch.Tensor:
    return h * 2 if h.shape[0] > 15 else h + 1 + 1


def _hides_a_tensor(h: torch.Tensor, ctx: object) -> torch.Tensor:
    return h + torch.from_numpy(np.ones(64, np.float32))


def _depends_on_rows(h: torch.Tensor, ctx: object) -> torch.Tensor:
    return h + torch.ones(ctx.rows * ctx.rows + 1).sum()  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("between", "reason"),
    [
        (_asks_for_a_number, "needs a value from the device"),
        (_branches_on_size, "different code"),
        (_hides_a_tensor, "out of the recorder's sight"),
        (_depends_on_rows, "follows neither tokens nor logit rows"),
    ],
)
def test_what_cannot_be_replayed_is_refused_with_its_reason(between: Between, reason: str) -> None:
    tiny = make_tiny(TorchBackend(), between)
    with torch.inference_mode(), pytest.raises(CaptureRefused, match=reason):
        record(tiny.body, tiny.blueprint.runtime, [BLOCK])
    assert tiny.blueprint.runtime.recorder is None, "a refused recording leaves the model as it was"
    with torch.inference_mode():
        assert torch.isfinite(tiny.body(make_batch(11, 5, 2))).all(), "the model still runs eagerly"
