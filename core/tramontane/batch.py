# SPDX-License-Identifier: Apache-2.0
"""The ragged batch of one step, as the model sees it.

``Ctx`` is passed explicitly down a model; nothing about the batch is global, so two engines live in one process. Its
tensors are views of buffers at fixed addresses (see :mod:`tramontane.prepare`), which is what lets a recorded step be
replayed. It holds no policy: which tokens run in a step is the scheduler's business.

Shape legend: T tokens of the step, R rows (sequences), L logit rows, B blocks of the longest row, K position streams
(3 for multimodal rope), A adapters.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from attrs import define, evolve
from torch import Tensor

if TYPE_CHECKING:
    from tramontane.adapters import Adapted


@define
class GroupCtx:
    """What one cache group (layers that share a block table) needs to know about the step."""

    table_RB: Tensor
    """int32: block ids of each row, padded with the null block 0."""
    slot_T: Tensor
    """int64: where each token's key and value go: block id * block size + offset. Padding goes to block 0."""


@define
class HostRows:
    """The same facts as Python lists, for kernels that run on the host. Absent where a step is replayed."""

    q_start: list[int]
    """R + 1 offsets into the T tokens."""
    kv_len: list[int]
    """Per row: keys visible to its last token (computed before + this step)."""
    tables: list[list[list[int]]]
    """[group][row] -> block ids."""
    adapted: list[Adapted] | None = None
    """The tokens that use an adapter, column by column; ``None`` where the host does not know the mix."""
    columns: list[int] | None = None
    """Per row: the column of its adapter, -1 without one; ``None`` where no row uses any."""


@define
class Ctx:
    """One step's batch. ``kv_len[r] - (q_start[r+1] - q_start[r])`` tokens of row r are already in the cache."""

    ids_T: Tensor
    """int64 token ids."""
    positions_KT: Tensor
    """int64 positions; K = 1 except for multimodal rope."""
    seq_of_T: Tensor
    """int32: the row each token belongs to."""
    q_start: Tensor
    """int32 [R + 1]."""
    kv_len_R: Tensor
    """int32."""
    out_rows_L: Tensor
    """int64: tokens whose hidden state goes through the head."""
    groups: list[GroupCtx]
    state_slot_R: Tensor | None = None
    """int64: slot of each row in recurrent-state storage; slot 0 is padding."""
    state_fresh_R: Tensor | None = None
    """bool: the row starts here, its recurrent state is to be taken as zero."""
    mix_TA: Tensor | None = None
    """float32: weight of each loaded adapter for each token; ``None`` where no token of the step uses any."""
    host: HostRows | None = None
    taps: dict[str, Tensor] | None = None
    """When set, modules store the named intermediate values here (importance matrices, drafts, gates)."""
    counts: Tensor | None = None
    """int32 [3]: the true T, R and L. The tensors above may be longer: padding rows end the batch, their tokens have
    id 0, write to the null block and are read by nobody."""

    def on(self, device: torch.device) -> Ctx:
        """The same batch on another device; itself where it is there already."""
        if self.ids_T.device == device:
            return self
        moved: dict[str, Any] = {
            name: value.to(device) for name in self.__annotations__ if isinstance(value := getattr(self, name), Tensor)
        }
        groups = [GroupCtx(one.table_RB.to(device), one.slot_T.to(device)) for one in self.groups]
        return evolve(self, groups=groups, **moved)

    @property
    def tokens(self) -> int:
        """T."""
        return int(self.ids_T.shape[0])

    @property
    def rows(self) -> int:
        """R."""
        return int(self.kv_len_R.shape[0])

    @property
    def outputs(self) -> int:
        """L."""
        return int(self.out_rows_L.shape[0])
