# SPDX-License-Identifier: Apache-2.0
"""Storage of recurrent states: a slot per sequence and snapshot, slot 0 for padding. It owns no slot itself."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch
from attrs import define
from torch import Tensor

from tramontane.cache.spec import CacheLayout


@define(eq=False)
class StateStore:
    """State tensors of every recurrent layer: name -> one tensor [slots, ...] per state of the layer."""

    tensors: Mapping[str, tuple[Tensor, ...]]

    @classmethod
    def allocate(cls, layout: CacheLayout, slots: int, device: Callable[[str], torch.device]) -> StateStore:
        """Zeroed storage for ``slots`` slots, each layer's on its own device."""
        made = {}
        for name in layout.state_layers:
            states = layout.layers[name].spec.states
            made[name] = tuple(torch.zeros(slots, *shape, dtype=dtype, device=device(name)) for shape, dtype in states)
        return cls(made)

    def copy(self, moves: Sequence[tuple[int, int]]) -> None:
        """Copy whole slots, in order."""
        for source, target in moves:
            for layer in self.tensors.values():
                for tensor in layer:
                    tensor[target].copy_(tensor[source])
