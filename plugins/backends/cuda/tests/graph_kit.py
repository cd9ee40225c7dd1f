# SPDX-License-Identifier: Apache-2.0
"""A stand-in for CUDA graphs on the host, and a backend whose steps it can record.

Recording notes every torch call and every launch of an interpreted Triton kernel with the tensors it had; a replay
makes the same calls on the same memory and runs no other Python. What a step took from the host while it was recorded
is therefore as frozen as it is in a graph, and a question to the device is refused as it is there.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from attrs import define, field
from torch import Tensor
from torch.utils import _pytree as pytree
from torch.utils._python_dispatch import TorchDispatchMode

from tramontane.backends.base import Padding, Replays
from tramontane.backends.torch import TorchBackend
from tramontane.batch import Ctx
from tramontane.build.budget import OWN_DEVICE
from tramontane.cache.planes import gather
from tramontane.ops import Attend, Kernel, KernelMaker, Op
from tramontane.rows import Fill
from tramontane.sampler.select import Knobs
from tramontane.sampler.state import Path
from tramontane_backend_cuda.graphs import StepGraphs, Work, sizes

_ASKS = (torch.Tag.data_dependent_output, torch.Tag.dynamic_output_shape)


@define(eq=False)
class Calls:
    """Recorded calls. Noting them did them once, which stands for the first replay."""

    calls: list[Callable[[], None]] = field(factory=list)
    results: tuple[Tensor, ...] = ()
    done: bool = True

    def replay(self) -> None:
        if self.done:
            self.done = False
            return
        for call in self.calls:
            call()


def _asks(func: Any, args: Any) -> bool:
    """Whether a call needs a number from the device. Taking rows does so by truth values alone."""
    if func is torch.ops.aten.index.Tensor:
        return any(one is not None and one.dtype is torch.bool for one in args[1])
    return any(tag in func.tags for tag in _ASKS)


class _Noting(TorchDispatchMode):
    def __init__(self, calls: list[Callable[[], None]]) -> None:
        super().__init__()
        self.calls, self.inside = calls, False

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if self.inside:
            return func(*args, **kwargs)
        if _asks(func, args):
            raise RuntimeError(f"{func} waits for the device")
        made = func(*args, **kwargs)
        old = [one for one in pytree.tree_leaves(made) if isinstance(one, Tensor)]

        def again() -> None:
            new = [one for one in pytree.tree_leaves(func(*args, **kwargs)) if isinstance(one, Tensor)]
            for kept, fresh in zip(old, new, strict=True):
                if kept.data_ptr() != fresh.data_ptr():
                    kept.copy_(fresh)

        self.calls.append(again)
        return made

    def launch(self, run: Callable[[], Any]) -> Any:
        """Note the launch of an interpreted kernel, whose own calls are no calls of the step."""
        self.inside = True
        try:
            made = run()
        finally:
            self.inside = False
        self.calls.append(run)
        return made


@define(eq=False)
class CallRecorder:
    """Implements :class:`tramontane_backend_cuda.graphs.Recorder`."""

    def record(self, work: Work) -> Calls:
        found = Calls()
        noting = _Noting(found.calls)
        with _launches(noting), noting:
            found.results = work()
        return found


class _launches:  # noqa: N801 - a context
    """Triton's interpreter tells of its launches meanwhile."""

    def __init__(self, noting: _Noting) -> None:
        self.noting, self.executor, self.plain = noting, None, None

    def __enter__(self) -> None:
        try:
            from triton.runtime.interpreter import GridExecutor
        except ImportError:
            return
        noting, plain = self.noting, GridExecutor.__call__

        def noted(executor: Any, *args: Any, **kwargs: Any) -> Any:
            if noting.inside:
                return plain(executor, *args, **kwargs)
            return noting.launch(lambda: plain(executor, *args, **kwargs))

        self.executor, self.plain = GridExecutor, plain
        GridExecutor.__call__ = noted

    def __exit__(self, *error: object) -> None:
        if self.executor is not None:
            self.executor.__call__ = self.plain


def device_attend(op: Op, weights: Sequence[Any]) -> Kernel | str:
    """Attention that takes all it needs from the batch's tensors: slow, and as a graph wants it."""
    assert isinstance(op, Attend)
    slot = weights[0]

    def run(ctx: Ctx | None, inputs: Sequence[Tensor], outputs: Sequence[Tensor]) -> None:
        assert ctx is not None
        (q_THD,), group, size = inputs, ctx.groups[slot.group], slot.block_tokens
        row_T = ctx.seq_of_T.long()
        token_T = torch.arange(q_THD.shape[0])
        starts_R, ends_R = ctx.q_start[:-1].long(), ctx.q_start[1:].long()
        position_T = token_T - ends_R[row_T] + ctx.kv_len_R.long()[row_T]
        place_S = torch.arange(group.table_RB.shape[1] * size)
        slots_TS = (group.table_RB.long()[:, place_S // size] * size + place_S % size)[row_T]
        seen_TS = (place_S <= position_T[:, None]) & (starts_R[row_T] >= 0)[:, None]
        if op.window is not None:
            seen_TS &= place_S > position_T[:, None] - op.window
        k_TSGD, v_TSGE = (gather(plane, slots_TS, q_THD.dtype) for plane in slot.planes)
        v_TSGE = v_TSGE.masked_fill(~seen_TS[..., None, None], 0)
        q_TGPD = q_THD.unflatten(1, (op.kv_heads, -1))
        scores = torch.einsum("tgpd,tsgd->tgps", q_TGPD.float(), k_TSGD.float()) * op.scale
        weights_TGPS = scores.masked_fill(~seen_TS[:, None, None], -torch.inf).softmax(-1)
        outputs[0].copy_(torch.einsum("tgps,tsge->tgpe", weights_TGPS, v_TSGE.float()).flatten(1))

    return run


@define(eq=False)
class GraphedTorch(TorchBackend):
    """Stock torch with an attention that graphs can hold, and the stand-in for graphs."""

    name: str = "graphed"
    graphs: StepGraphs | None = field(default=None, init=False)
    record: bool = field(default=True, init=False)
    any_draw: bool = field(default=False, init=False)

    def candidates(self, op: Op) -> Sequence[tuple[str, KernelMaker]]:
        found = super().candidates(op)
        return (("device", device_attend), *found) if op.name == "attend" else found

    def replays(self, max_tokens: int, max_rows: int) -> Replays | None:
        if self.record:
            self.graphs = StepGraphs(Padding(sizes(max_tokens), max_rows, self.any_draw), CallRecorder())
        return self.graphs


class EagerTorch(GraphedTorch):
    """The same kernels, never recorded."""

    def replays(self, max_tokens: int, max_rows: int) -> Replays | None:
        return None


@define(eq=False)
class TritonEnds(GraphedTorch):
    """Both ends of a step by Triton: its batch is built, and its tokens are drawn."""

    name: str = "tritonends"

    def __attrs_post_init__(self) -> None:
        self.any_draw = True

    def fill(self) -> Fill:
        from tramontane_backend_cuda.fill import fill

        return fill

    def draw(
        self, path: Path | None, logits_RV: Tensor, knobs: Knobs | None, uniform_R: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        from tramontane_backend_cuda.drawing import draw_rows

        return draw_rows(path, logits_RV, knobs, uniform_R)


PEAK, FREE = 24 << 20, 1 << 30


@define(eq=False)
class CardLike(GraphedTorch):
    """A device that tells what a step took, and has a fixed amount of memory."""

    name: str = "cardlike"
    measured: int = field(default=0, init=False)
    """Steps that were measured."""

    def __attrs_post_init__(self) -> None:
        self.cache_limits = OWN_DEVICE

    def peak(self, work: Callable[[], object]) -> int | None:
        work()
        self.measured += 1
        return PEAK - self.measured

    def free_memory(self) -> int:
        return FREE
