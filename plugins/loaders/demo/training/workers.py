# SPDX-License-Identifier: Apache-2.0
"""Processes that share the steps of a training, a core each: every one draws its own documents, gradients are averaged.

Started by ``torchrun --nproc-per-node N -m training.train ...``; without it there is one. On a CPU that has other work,
processes that meet once a step lose less than threads that meet in every matrix product.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import torch
from attrs import frozen
from torch import Tensor, distributed, nn


@frozen
class Workers:
    """Which of how many this process is."""

    rank: int = 0
    count: int = 1

    @classmethod
    def joined(cls) -> Workers:
        """Join the processes that torchrun started."""
        if "RANK" not in os.environ:
            return cls()
        distributed.init_process_group("gloo")
        return cls(distributed.get_rank(), distributed.get_world_size())

    def average_gradients(self, model: nn.Module) -> None:
        """Replace gradients by their mean over all processes."""
        if self.count == 1:
            return
        gradients = [weight.grad for weight in model.parameters() if weight.grad is not None]
        flat = torch.cat([gradient.flatten() for gradient in gradients])
        distributed.all_reduce(flat)
        flat /= self.count
        for gradient, part in zip(gradients, flat.split([gradient.numel() for gradient in gradients]), strict=True):
            gradient.copy_(part.view_as(gradient))

    def shared(self, function: Callable[[Tensor], Tensor], x_NAB: Tensor) -> Tensor:
        """`function` of a batch of matrices that all processes have, each doing its part."""
        if self.count == 1:
            return function(x_NAB)
        out_NAB = torch.zeros_like(x_NAB)
        out_NAB[self.rank :: self.count] = function(x_NAB[self.rank :: self.count])
        distributed.all_reduce(out_NAB)
        return out_NAB

    def gather(self, value: Any) -> list[Any]:
        """The values of all processes, on the first; on the others an empty list."""
        if self.count == 1:
            return [value]
        found: list[Any] = [None] * self.count if self.rank == 0 else []
        distributed.gather_object(value, found or None)
        return found


ALONE = Workers()
