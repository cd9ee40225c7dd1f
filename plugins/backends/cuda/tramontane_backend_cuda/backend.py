# SPDX-License-Identifier: Apache-2.0
"""The ``cuda`` backend: Triton kernels for what they cover, stock torch for the rest."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Mapping, Sequence

import torch
from attrs import define, field
from torch import Tensor

from tramontane.backends.base import HostBackend, Replays
from tramontane.backends.torch import TorchBackend
from tramontane.errors import PlanError
from tramontane.memory import available_memory
from tramontane.ops import KernelMaker, Op
from tramontane.rows import Fill
from tramontane.sampler.select import Knobs
from tramontane.sampler.state import Path
from tramontane.weights import Matrix, Stored
from tramontane_backend_cuda.graphs import step_graphs


def interpreted() -> bool:
    """Triton's interpreter is asked for, which runs kernels on the host: for tests, not for speed."""
    return os.environ.get("TRITON_INTERPRET", "0").lower() in ("1", "true", "on", "y", "yes")


def _default_device() -> torch.device:
    return torch.device("cpu" if interpreted() and not torch.cuda.is_available() else "cuda")


@define(eq=False, init=False)
class CudaBackend(HostBackend):
    """Triton kernels on NVIDIA cards.

    Raises:
        PlanError: The device is no CUDA device, and Triton's interpreter was not asked for.
    """

    name: str = "cuda"
    _stock: TorchBackend = field(init=False, repr=False)
    _own: Mapping[str, KernelMaker] = field(init=False, repr=False)

    def __init__(self, device: torch.device | None = None) -> None:
        self.__attrs_init__(device or _default_device())
        if self.device.type != "cuda" and not (self.device.type == "cpu" and interpreted()):
            raise PlanError(
                f"the cuda backend does not run on {self.device}",
                hint="use --device cuda, or the backends torch and cpu; TRITON_INTERPRET=1 allows a CPU for tests",
            )
        from tramontane_backend_cuda.makers import MAKERS, RULES  # Triton decides at its import whether it interprets

        self._stock, self._own, self.rules = TorchBackend(self.device), MAKERS, (*self.rules, *RULES)

    @classmethod
    def probe(cls) -> str | None:
        """Why this cannot run here: no Triton, no CUDA device. A CPU will do under ``TRITON_INTERPRET=1``."""
        if importlib.util.find_spec("triton") is None:
            return "triton is not installed; it has packages for Linux only"
        if not torch.cuda.is_available() and not interpreted():
            return "torch sees no CUDA device"
        return None

    def choose_dtype(self, stored: torch.dtype) -> torch.dtype:
        """As stock torch chooses."""
        return self._stock.choose_dtype(stored)

    def store(self, matrix: Matrix, dtype: torch.dtype) -> Stored:
        """Planes where every part has them, the core's storages otherwise."""
        from tramontane_backend_cuda.storage import PlaneStored

        return PlaneStored.of(matrix, dtype, self.device) or super().store(matrix, dtype)

    def candidates(self, op: Op) -> Sequence[tuple[str, KernelMaker]]:
        """The Triton kernel, the stock one, the reference."""
        stock, own = self._stock.candidates(op), self._own.get(op.name)
        return stock if own is None else ((f"cuda.{op.name}", own), *stock)

    def draw(
        self, path: Path | None, logits_RV: Tensor, knobs: Knobs | None, uniform_R: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        """By Triton, nothing sorted."""
        from tramontane_backend_cuda.drawing import draw_rows

        return draw_rows(path, logits_RV, knobs, uniform_R)

    def fill(self) -> Fill:
        """A program a row."""
        from tramontane_backend_cuda.fill import fill

        return fill

    def replays(self, max_tokens: int, max_rows: int) -> Replays | None:
        """CUDA graphs; none under the interpreter, which has no device to record on."""
        return step_graphs(self.device, max_tokens, max_rows) if self.device.type == "cuda" else None

    def free_memory(self) -> int:
        """What the device, or the machine under the interpreter, has left."""
        return self._stock.free_memory() if self.device.type == "cuda" else available_memory()
