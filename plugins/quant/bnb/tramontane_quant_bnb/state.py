# SPDX-License-Identifier: Apache-2.0
"""The description that bitsandbytes stores beside each 4-bit matrix: a JSON object as bytes, from a stranger."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Literal

import torch
from attrs import field, frozen
from torch import Tensor

from tramontane.config import Size, read_config
from tramontane.errors import CheckpointError, PlanError
from tramontane.schemes.codebook import TABLES

TYPES: tuple[Literal["nf4", "fp4"], ...] = ("nf4", "fp4")
_TOLERANCE = 1e-6


@frozen(kw_only=True)
class State:
    """How one matrix is stored."""

    quant_type: Literal["nf4", "fp4"]
    blocksize: Size
    """Elements per scale, counted through the whole matrix, row after row."""
    shape: tuple[Size, ...]
    nested_blocksize: Size | None = None
    """Scales per scale of scales, where those are quantized too."""
    nested_offset: float = field(default=0.0)
    """Mean that was taken from the scales before."""


def read_states(texts: Sequence[Tensor], name: str) -> list[State]:
    """The descriptions of a module, one per expert where experts are stored one by one.

    Raises:
        CheckpointError: One is not JSON.
        ConfigError: One lacks something or is of another kind.
        PlanError: They differ in more than their offsets.
    """
    states = []
    for text in texts:
        try:
            content = json.loads(bytes(text.to(torch.uint8).flatten().tolist()).decode("utf-8"))
        except (ValueError, RecursionError) as error:
            raise CheckpointError(f"the description of {name} is not JSON: {error}") from error
        states.append(read_config(State, content, f"the description of {name}"))
    first = states[0]
    for state in states:
        if (state.quant_type, state.blocksize, state.shape, state.nested_blocksize) != (
            first.quant_type,
            first.blocksize,
            first.shape,
            first.nested_blocksize,
        ):
            raise PlanError(f"the experts of {name} are stored differently: {first} and {state}")
    return states


def check_table(values: Sequence[Tensor], state: State, name: str) -> None:
    """Refuse codes that stand for other values than the scheme's.

    Raises:
        PlanError: The table is missing, or another.
    """
    table = torch.tensor(TABLES[state.quant_type])
    for stored in values:
        if stored.shape != table.shape or not torch.allclose(stored.float(), table, atol=_TOLERANCE):
            raise PlanError(f"{name} has a table of its own for {state.quant_type}, which is not supported")
    if not values:
        raise PlanError(f"{name} has no weight.quant_map")
