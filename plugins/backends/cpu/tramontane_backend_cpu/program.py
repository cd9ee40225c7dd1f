# SPDX-License-Identifier: Apache-2.0
"""Tapes lowered to native programs: each stretch of native kernels is one call, whatever the batch.

Sizes, tables and positions are read from the batch by the native side, so decoding, prefill and mixed steps run one
program. Ops without a native kernel, and torch code of the model's own, stand between the stretches and run in Python
over the same memory: slower by that much, never wrong.
"""

from __future__ import annotations

import ctypes
import logging
import weakref
from collections.abc import Callable, Sequence

from attrs import define, field
from torch import Tensor

from tramontane.batch import Ctx
from tramontane.tape.arena import ArenaPlan, plan_arena
from tramontane.tape.ir import Node, OpNode, Tape, TorchNode
from tramontane_backend_cpu import abi
from tramontane_backend_cpu.interpret import Interpreter, carve
from tramontane_backend_cpu.kernel import Engine, NativeKernel, raise_for
from tramontane_backend_cpu.library import empty_bytes, library
from tramontane_backend_cpu.places import Places
from tramontane_backend_cpu.steps import Steps

_log = logging.getLogger(__name__)


@define(eq=False)
class Stretch:
    """Consecutive native nodes, run by one call."""

    nodes: Sequence[abi.Node]
    handle: int = field(init=False)

    def __attrs_post_init__(self) -> None:
        self.handle = library().tm_program_new((abi.Node * len(self.nodes))(*self.nodes), len(self.nodes))
        weakref.finalize(self, library().tm_program_free, self.handle)


@define(eq=False)
class NativeProgram:
    """Implements :class:`tramontane.backends.base.Runnable`."""

    tape: Tape
    engine: Engine
    plan: ArenaPlan
    pieces: Sequence[Stretch | Node] = field(repr=False)
    _interpreter: Interpreter = field(init=False, repr=False)
    _whole: Stretch | None = field(init=False)
    _arena: Tensor | None = field(default=None, init=False, repr=False)
    _address: int = field(default=0, init=False)
    _steps: Steps = field(factory=Steps, init=False)
    _run: Callable[..., int] = field(init=False)
    _results: dict[tuple[int, int], tuple[Tensor, ...]] = field(factory=dict, init=False, repr=False)

    def __attrs_post_init__(self) -> None:
        self._interpreter = Interpreter(self.tape, self.plan)
        self._run = library().tm_program_run
        one = self.pieces[0] if len(self.pieces) == 1 else None
        placed = all(value in self.plan.offsets for value in self.tape.results)
        self._whole = one if isinstance(one, Stretch) and placed else None

    @property
    def native(self) -> bool:
        """The whole step is one call, and its results lie in the arena."""
        return self._whole is not None

    @property
    def cuts(self) -> list[str]:
        """What runs outside the native stretches, in order: ops of the table and torch calls."""
        nodes = [piece for piece in self.pieces if not isinstance(piece, Stretch)]
        return [node.call.op.name if isinstance(node, OpNode) else str(node.func) for node in nodes]

    def run(self, ctx: Ctx) -> tuple[Tensor, ...]:
        """Run one step. The results are views of the arena: use them before the next run."""
        if self._arena is None:
            self._arena = empty_bytes(max(1, self.plan.nbytes))
            self._address = self._arena.data_ptr()
        step = self._steps.of(ctx)
        step.arena = self._address
        if self._whole is not None:
            self._call(self._whole, step)
            return self._finished(self._arena, step.tokens, step.outputs)
        env = self._interpreter.begin(ctx, self._arena)
        for piece in self.pieces:
            if isinstance(piece, Stretch):
                self._call(piece, step)
            else:
                env.run(piece)
        return tuple(env.tensor(value) for value in self.tape.results)

    def _call(self, stretch: Stretch, step: abi.Step) -> None:
        raise_for(self._run(stretch.handle, self.engine.pool.handle, ctypes.byref(step)), "captured step")

    def _finished(self, arena: Tensor, tokens: int, outputs: int) -> tuple[Tensor, ...]:
        """The results as tensors. Decoding repeats one size, so they are kept."""
        found = self._results.get((tokens, outputs))
        if found is None:
            if len(self._results) >= 64:
                self._results.clear()
            sizes = (self.tape, self.plan, arena, tokens, outputs)
            found = self._results[tokens, outputs] = tuple(carve(value, *sizes) for value in self.tape.results)
        return found


def lower(tape: Tape, engine: Engine, max_tokens: int, max_outputs: int) -> NativeProgram:
    """Gather what is native into stretches; say once what is not."""
    plan = plan_arena(tape, max_tokens, max_outputs)
    places = Places(tape, plan)
    pieces: list[Stretch | Node] = []
    waiting: list[abi.Node] = []
    refused: dict[str, str] = {}

    def close() -> None:
        if waiting:
            pieces.append(Stretch(tuple(waiting)))
            waiting.clear()

    for node in tape.nodes:
        if isinstance(node, TorchNode) and node.is_view:
            continue  # storage is fixed, and whoever runs in Python takes its views itself
        made = _native(node, places)
        if isinstance(made, abi.Node):
            waiting.append(made)
            continue
        close()
        pieces.append(node)
        if isinstance(node, OpNode):
            refused.setdefault(node.call.op.name, made)
    close()
    for name, reason in refused.items():
        _log.warning("%s runs outside the native program: %s", name, reason)
    return NativeProgram(tape, engine, plan, tuple(pieces))


def _native(node: Node, places: Places) -> abi.Node | str:
    if not isinstance(node, OpNode):
        return "torch code"
    kernel = node.call.kernel
    if not isinstance(kernel, NativeKernel):
        return f"{node.call.choice.kernel if node.call.choice else 'its kernel'} is not native"
    return kernel.node([places.operand(value) for value in (*node.inputs, *node.outputs)])
