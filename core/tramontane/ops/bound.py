# SPDX-License-Identifier: Apache-2.0
"""Ops bound into a model: the only way in which model code computes.

A :class:`BoundOp` joins an op, its weights and, once the plan is settled, one kernel. Calling it allocates the outputs
and runs the kernel; while a recorder is at work it hands itself to the recorder. It makes no choice at run time.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from typing import TYPE_CHECKING, Any, Protocol

import torch
from attrs import define, field, frozen
from torch import Tensor

from tramontane.batch import Ctx
from tramontane.errors import PlanError
from tramontane.ops.base import Op

if TYPE_CHECKING:
    from tramontane.tape.record import Recorder

Kernel = Callable[[Ctx | None, Sequence[Tensor], Sequence[Tensor]], None]
"""``kernel(ctx, inputs, outputs)`` writes every element of ``outputs``, and nothing else but a cache if its op may."""


class KernelMaker(Protocol):
    """Specializes a kernel for one bound op, or answers why it cannot."""

    def __call__(self, op: Op, weights: Sequence[Any]) -> Kernel | str:
        """A kernel, or the reason for which this op with these weights is refused."""
        ...


@define(eq=False)
class Runtime:
    """What the ops of one model share. Engines do not share it, so two of them live in one process."""

    device: torch.device
    recorder: Recorder | None = None
    adapting: Ctx | None = None
    """The batch of the step that runs, where some of its tokens use adapters: linears are called without it."""
    carries: bool = False
    """Ops of other devices stand before these: what they are given is brought here first."""
    _carried: tuple[Ctx, Ctx] | None = field(default=None, init=False, repr=False)

    def bring(self, inputs: Sequence[Tensor], ctx: Ctx | None) -> tuple[Sequence[Tensor], Ctx | None]:
        """Inputs and batch on this device."""
        if ctx is not None:
            if self._carried is None or self._carried[0] is not ctx:  # once a step
                self._carried = (ctx, ctx.on(self.device))
            ctx = self._carried[1]
        return [one.to(self.device) for one in inputs], ctx


@define(eq=False)
class Choice:
    """Which kernel was chosen and why others were not; printed by ``--explain-plan``."""

    kernel: str
    refused: tuple[tuple[str, str], ...] = ()


@define(eq=False)
class BoundOp:
    """One op of one model, with its weights."""

    op: Op
    weights: tuple[Any, ...]
    runtime: Runtime
    path: str = ""
    """Where in the model it stands, for messages."""
    kernel: Kernel | None = field(default=None, repr=False)
    choice: Choice | None = None
    adapted: BoundOp | None = field(default=None, repr=False)
    """What stands behind it, or in its place, in steps whose tokens use adapters."""
    replaced: bool = False
    """``adapted`` stands in its place."""

    def __call__(self, *inputs: Tensor, ctx: Ctx | None = None) -> Any:
        """Run the op: one tensor, or a tuple where the op has several outputs, or ``None`` where it has none."""
        batch = self.runtime.adapting
        if self.adapted is None or batch is None or batch.mix_TA is None:
            return self._one(inputs, ctx)
        before = () if self.replaced else (self._one(inputs, ctx),)
        return self.adapted(*before, *inputs, batch.mix_TA, ctx=batch)

    def _one(self, inputs: Sequence[Tensor], ctx: Ctx | None) -> Any:
        recorder = self.runtime.recorder
        if recorder is not None:
            return recorder.record(self, inputs)
        if self.runtime.carries:
            return self._run_here(*self.runtime.bring(inputs, ctx))
        outputs = self.allocate(inputs)
        self.run(ctx, inputs, outputs)
        return unwrap(outputs)

    def _run_here(self, inputs: Sequence[Tensor], ctx: Ctx | None) -> Any:
        """Run with the runtime's device as the current one: kernels start on the device of their tensors."""
        device = self.runtime.device
        with torch.cuda.device(device) if device.type == "cuda" else nullcontext():
            outputs = self.allocate(inputs)
            self.run(ctx, inputs, outputs)
        return unwrap(outputs)

    def allocate(self, inputs: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """Fresh, uninitialized outputs for these inputs."""
        device = self.runtime.device
        return tuple(torch.empty(shape, dtype=dtype, device=device) for shape, dtype in self.metas(inputs))

    def metas(self, inputs: Sequence[Tensor]) -> tuple[tuple[tuple[int, ...], torch.dtype], ...]:
        """Shapes and dtypes of the outputs for these inputs."""
        return self.op.outputs(self.weights, *inputs)

    def run(self, ctx: Ctx | None, inputs: Sequence[Tensor], outputs: Sequence[Tensor]) -> None:
        """Run the chosen kernel into ``outputs``."""
        if self.kernel is None:
            raise PlanError(f"{self.path}: op {self.op.name!r} was called before a kernel was bound to it")
        self.kernel(ctx, inputs, outputs)

    def bind(self, candidates: Sequence[tuple[str, KernelMaker]]) -> None:
        """Take the first candidate that accepts; keep the reasons of those that refused."""
        refused: list[tuple[str, str]] = []
        for name, make in candidates:
            kernel = make(self.op, self.weights)
            if not isinstance(kernel, str):
                self.kernel, self.choice = kernel, Choice(name, tuple(refused))
                return
            refused.append((name, kernel))
        reasons = "; ".join(f"{name}: {why}" for name, why in refused) or "no backend implements it"
        raise PlanError(f"{self.path}: no kernel for op {self.op.name!r} ({reasons})")


def unwrap(outputs: Sequence[Tensor]) -> Any:
    """One output is returned bare, several as a tuple, none as ``None``."""
    if len(outputs) == 1:
        return outputs[0]
    return tuple(outputs) if outputs else None


def reads_host(kernel: Kernel) -> bool:
    """Whether a kernel asks for numbers on the host while it runs, so that no graph can hold it: its attribute
    ``reads_host`` says so."""
    return bool(getattr(kernel, "reads_host", False))


def reference_kernel(op: Op, weights: Sequence[Any]) -> Kernel:
    """The op's own reference as a kernel: computes, then copies into the outputs."""
    return _Reference(op, weights)


@frozen(eq=False)
class _Reference:
    op: Op
    weights: Sequence[Any]

    @property
    def reads_host(self) -> bool:
        return not self.op.on_device

    def __call__(self, ctx: Ctx | None, inputs: Sequence[Tensor], outputs: Sequence[Tensor]) -> None:
        for out, value in zip(outputs, self.op.reference(ctx, self.weights, *inputs), strict=True):
            out.copy_(value)
