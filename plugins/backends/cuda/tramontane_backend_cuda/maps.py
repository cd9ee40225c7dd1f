# SPDX-License-Identifier: Apache-2.0
"""The rule by which layers share the task map of a step, and attention with a map that was made before."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from tramontane.ops import Attend, AttendLatent, Kernel, Op
from tramontane.tape.ir import Kind, OpNode, Size, Tape, Value
from tramontane.tape.rules import Fuse
from tramontane_backend_cuda.attention import AttendMap, AttendMapped, attend, map_of
from tramontane_backend_cuda.latent import attend_latent, latent_map
from tramontane_backend_cuda.tasks import MAX_PIECES


def attend_mapped(op: Op, weights: Sequence[Any]) -> Kernel | str:
    """The kernel of the attention itself; it sees that there is a map."""
    if not isinstance(op, AttendMapped):
        return f"made for attend_mapped, not {op.name}"
    return attend(op.attend, weights) if isinstance(op.attend, Attend) else attend_latent(op.attend, weights)


def share_maps(tape: Tape, fuse: Fuse) -> bool:
    """attend -> attend_map, shared by layers of equal heads and window, and attend_mapped."""
    maps: dict[AttendMap, int] = {}
    for node in list(tape.nodes):
        if not isinstance(node, OpNode) or not isinstance(node.call.op, Attend | AttendLatent):
            continue
        op, call = node.call.op, node.call
        mapper = map_of(op) if isinstance(op, Attend) else latent_map(op)
        mapped, made = fuse(AttendMapped(op), call.weights, call), fuse(mapper, (), call)
        if mapped is None or made is None:
            continue
        index = tape.nodes.index(node)
        if mapper not in maps:
            tape.values.append(Value(Kind.ARENA, (Size(tokens=1, constant=MAX_PIECES), mapper.width), torch.int32))
            maps[mapper] = len(tape.values) - 1
            tape.nodes.insert(index, OpNode(made, (), (maps[mapper],)))
            index += 1
        tape.nodes[index] = OpNode(mapped, (*node.inputs, maps[mapper]), node.outputs)
    return False  # one pass finds all
