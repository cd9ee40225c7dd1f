# SPDX-License-Identifier: Apache-2.0
"""The ``cpu`` backend: native kernels for what they cover, stock torch for the rest."""

from __future__ import annotations

import functools
import logging
from collections.abc import Sequence

import torch
from attrs import define, field
from torch import Tensor

from tramontane.backends.base import HostBackend, Runnable
from tramontane.backends.torch import TorchBackend
from tramontane.cache.spec import CacheLayout
from tramontane.memory import available_memory
from tramontane.ops import Kernel, KernelMaker, Op
from tramontane.sampler.select import Knobs
from tramontane.sampler.state import Path
from tramontane.tape.ir import Tape
from tramontane.weights import CacheSlot, Matrix, Stored
from tramontane_backend_cpu import layouts
from tramontane_backend_cpu.drawing import draw_rows
from tramontane_backend_cpu.kernel import Engine
from tramontane_backend_cpu.kernels import MAKERS, make
from tramontane_backend_cpu.library import LibraryError, default_pool, library, library_digest
from tramontane_backend_cpu.planes import make_planes
from tramontane_backend_cpu.precision import exact_activations
from tramontane_backend_cpu.program import lower

_log = logging.getLogger(__name__)


@functools.cache
def _why_not() -> str | None:
    """Why the native library cannot be used. Said once here, since another backend will silently do."""
    try:
        library()
    except LibraryError as error:
        _log.warning("tramontane-backend-cpu is not used: %s", error)
        return str(error)
    return None


@define(eq=False)
class CpuBackend(HostBackend):
    """Native kernels."""

    name: str = "cpu"
    engine: Engine = field(factory=lambda: Engine(default_pool()))
    _stock: TorchBackend = field(factory=TorchBackend, init=False, repr=False)

    @classmethod
    def probe(cls) -> str | None:
        """Why the native library cannot be used here; ``None`` if it can."""
        return _why_not()

    @property
    def layouts(self) -> str:
        """The library that packs them decides their bytes."""
        return f"cpu {library_digest()} exact {exact_activations()}"

    def choose_dtype(self, stored: torch.dtype) -> torch.dtype:
        """The stored type; bfloat16 for float16, which overflows and is converted at every use."""
        return self._stock.choose_dtype(stored)

    def store(self, matrix: Matrix, dtype: torch.dtype) -> Stored:
        """A native layout for each part where there is one, the core's storages otherwise."""
        return layouts.store(matrix, dtype) or super().store(matrix, dtype)

    def candidates(self, op: Op) -> Sequence[tuple[str, KernelMaker]]:
        """The native kernel, the stock one, the reference."""
        stock = self._stock.candidates(op)
        return ((f"cpu.{op.name}", self._make), *stock) if op.name in MAKERS else stock

    def _make(self, op: Op, weights: Sequence[object]) -> Kernel | str:
        return make(op, weights, self.engine)

    def make_cache(self, layout: CacheLayout, slots: Sequence[CacheSlot], blocks: int) -> None:
        """Pages shared by all layers, heads first within a block."""
        planes = make_planes(layout, blocks)
        for slot in slots:
            slot.group, slot.planes = layout.layers[slot.path].group, planes.get(slot.path, ())

    def free_memory(self) -> int:
        """What the machine or its cgroup has left."""
        return available_memory()

    def lower(self, tape: Tape, max_tokens: int, max_outputs: int) -> Runnable:
        """One native program, cut where something is not native."""
        return lower(tape, self.engine, max_tokens, max_outputs)

    def draw(
        self, path: Path | None, logits_RV: Tensor, knobs: Knobs | None, uniform_R: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        """By the native kernel."""
        return draw_rows(self.engine.pool, path, logits_RV, knobs, uniform_R)
