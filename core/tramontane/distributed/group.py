# SPDX-License-Identifier: Apache-2.0
"""The workers that share one model, as tensors meet them: sums, joins, copies.

A group is an object of its own and not torch's global one, so several engines live in one process. Only tensors pass
through it; nothing is pickled. On the host it talks by gloo over the loopback interface, on NVIDIA cards by NCCL.
"""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from attrs import define, field
from torch import Tensor

from tramontane.errors import EngineError, PlanError

TIMEOUT = timedelta(minutes=10)
"""A worker that does not come to a collective within this is taken for dead."""


@define(eq=False)
class Group:
    """Worker ``rank`` of ``world``. Made before the workers know each other: see :meth:`connect`."""

    rank: int = 0
    world: int = 1
    _backend: Any = field(default=None, init=False, repr=False)

    def connect(self, store: Any, device: torch.device) -> None:
        """Meet the other workers at a store of ``torch.distributed``; returns when all are there.

        Raises:
            PlanError: Workers cannot talk from that kind of device.
            EngineError: One of them did not come.
        """
        try:
            self._backend = _MAKERS[device.type](store, self.rank, self.world, device)
        except KeyError:
            raise PlanError(
                f"workers cannot share a model on {device}", hint="devices for tensor parallelism: cpu, cuda"
            ) from None
        except RuntimeError as error:
            raise EngineError(f"worker {self.rank} of {self.world} cannot meet the others: {_said(error)}") from error

    def sum(self, tensor: Tensor) -> Tensor:
        """Add up all workers' contiguous tensors, in place."""
        return self._run(self._backend.allreduce([tensor]), tensor)

    def least(self, number: int, device: torch.device) -> int:
        """The smallest of all workers' numbers."""
        options: Any = dist.AllreduceOptions()
        options.reduceOp = dist.ReduceOp.MIN
        held = torch.tensor([number], dtype=torch.int64, device=device)
        return int(self._run(self._backend.allreduce([held], options), held).item())

    def gather(self, tensor: Tensor) -> list[Tensor]:
        """All workers' tensors, which have one shape, by rank."""
        made = [torch.empty_like(tensor, memory_format=torch.contiguous_format) for _ in range(self.world)]
        self._run(self._backend.allgather([made], [tensor.contiguous()]), tensor)
        return made

    def copy(self, tensor: Tensor) -> Tensor:
        """Give every worker the tensor of the first one, in place."""
        return self._run(self._backend.broadcast([tensor]), tensor)

    @staticmethod
    def _run(work: Any, result: Tensor) -> Tensor:
        try:
            work.wait()
        except RuntimeError as error:
            raise EngineError(f"a worker was lost: {_said(error)}", hint="see its message above; load again") from error
        return result


def _said(error: Exception) -> str:
    return str(error).splitlines()[0] if str(error) else type(error).__name__


def _gloo(store: Any, rank: int, world: int, device: torch.device) -> Any:
    # Bound to loopback: by default gloo listens on the address of the host's name.
    gloo: Any = dist.ProcessGroupGloo
    options = gloo._Options()
    options._devices = [gloo.create_device(hostname="127.0.0.1")]
    options._timeout = TIMEOUT
    return gloo(store, rank, world, options)


def _nccl(store: Any, rank: int, world: int, device: torch.device) -> Any:
    nccl: Any = dist.ProcessGroupNCCL
    options = nccl.Options()
    options._timeout = TIMEOUT
    torch.cuda.set_device(device)
    return nccl(store, rank, world, options)


_MAKERS = {"cpu": _gloo, "cuda": _nccl}
