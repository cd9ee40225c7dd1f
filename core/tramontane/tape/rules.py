# SPDX-License-Identifier: Apache-2.0
"""Rewrite rules: all fusion happens here, on the tape, never in model files.

A rule is ``rule(tape, fuse) -> bool`` and edits the tape in place, answering whether it changed anything. ``fuse``
binds a fused op to a kernel and answers ``None`` where the backend has none better than the sequence, in which case the
rule leaves things as they are. Backends add rules of their own.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from torch.utils import _pytree as pytree

from tramontane.ops import BoundOp, CacheWrite, GatedActivate, Linear, LinearGated, Op, RmsNorm, Rotate, RotateWrite
from tramontane.tape.ir import Node, OpNode, Ref, Tape, TorchNode

Fuse = Callable[[Op, Sequence[Any], BoundOp], BoundOp | None]
"""``fuse(op, weights, like)``: the fused op at the place of ``like`` with a kernel bound, or ``None``."""

Rule = Callable[[Tape, Fuse], bool]


def apply_rules(tape: Tape, fuse: Fuse, rules: Sequence[Rule]) -> None:
    """Apply each rule until it finds nothing more, then drop what nobody reads."""
    for rule in rules:
        while rule(tape, fuse):
            pass
    drop_dead(tape)


def share_equal(tape: Tape, fuse: Fuse) -> bool:
    """Common subexpressions: an op without effect, over the same weights and inputs, is run once."""
    seen: dict[object, OpNode] = {}
    rename: dict[int, int] = {}
    kept: list[Node] = []
    for node in tape.nodes:
        _rename_inputs(node, rename)
        if isinstance(node, OpNode) and _pure(node.call) and not _written(tape, node):
            key = (node.call.op, tuple(id(w) for w in node.call.weights), node.inputs)
            twin = seen.setdefault(key, node)
            if twin is not node:
                rename.update(zip(node.outputs, twin.outputs, strict=True))
                continue
        kept.append(node)
    tape.nodes[:] = kept
    tape.results = tuple(rename.get(v, v) for v in tape.results)
    for value in tape.values:
        if value.root is not None:
            value.root = rename.get(value.root, value.root)
    return False  # one pass finds all, since inputs are renamed on the way


def _pure(call: BoundOp) -> bool:
    """The op gives the same for the same inputs wherever it stands: it neither writes nor reads a cache."""
    return not call.op.effect and "cache" not in call.op.roles and "state" not in call.op.roles


def fuse_gate(tape: Tape, fuse: Fuse) -> bool:
    """linear -> gated_activate becomes one op."""
    for index, node in enumerate(tape.nodes):
        if not isinstance(node, OpNode) or not isinstance(node.call.op, GatedActivate):
            continue
        source = _maker(tape, node.inputs[0])
        if source is None or not isinstance(source.call.op, Linear) or len(_readers(tape, node.inputs[0])) != 1:
            continue
        fused = fuse(LinearGated(source.call.op, node.call.op), source.call.weights, source.call)
        if fused is not None:
            tape.nodes[index] = OpNode(fused, source.inputs, node.outputs)
            tape.nodes.remove(source)
            return True
    return False


def fuse_rotate_write(tape: Tape, fuse: Fuse) -> bool:
    """(norms of q and k ->) rotate -> cache_write becomes one op that leaves only the rotated queries."""
    for write in tape.nodes:
        if not isinstance(write, OpNode) or not isinstance(write.call.op, CacheWrite) or len(write.inputs) != 2:
            continue
        k_out, value = write.inputs
        rotate = _maker(tape, k_out)
        if rotate is None or not isinstance(rotate.call.op, Rotate) or rotate.outputs[1] != k_out:
            continue
        if len(_readers(tape, k_out)) != 1 or not _ready(tape, value, rotate):
            continue
        if _replace_rotation(tape, rotate, write, fuse):
            return True
    return False


def _replace_rotation(tape: Tape, rotate: OpNode, write: OpNode, fuse: Fuse) -> bool:
    q, k, angles = rotate.inputs
    norms, norm = _equal_norms(tape, q, k)
    if norm is not None:
        q, k = (node.inputs[0] for node in norms)
    op = RotateWrite(_rotation(rotate), norm)
    weights = [*write.call.weights, *(weight for node in norms for weight in node.call.weights)]
    fused = fuse(op, weights, rotate.call)
    if fused is None:
        return False
    tape.nodes[tape.nodes.index(rotate)] = OpNode(fused, (q, k, write.inputs[1], angles), rotate.outputs[:1])
    for node in (write, *norms):
        tape.nodes.remove(node)
    return True


def _rotation(node: OpNode) -> Rotate:
    op = node.call.op
    if not isinstance(op, Rotate):
        raise TypeError(f"expected a rotation, found {op.name}")
    return op


def _equal_norms(tape: Tape, *values: int) -> tuple[list[OpNode], RmsNorm | None]:
    """The nodes of one and the same scaled norm that make values which nothing else reads, if they all are."""
    nodes = [node for value in values if (node := _maker(tape, value)) and len(_readers(tape, value)) == 1]
    norm = nodes[0].call.op if nodes else None
    if not isinstance(norm, RmsNorm) or not norm.scaled or [node.call.op for node in nodes] != [norm] * len(values):
        return [], None
    return nodes, norm


def _ready(tape: Tape, value: int, node: Node) -> bool:
    """``value`` is made before ``node`` runs."""
    at = tape.nodes.index(node)
    return all(value not in later.outputs for later in tape.nodes[at:])


def _maker(tape: Tape, value: int) -> OpNode | None:
    for node in tape.nodes:
        if value in node.outputs:
            return node if isinstance(node, OpNode) else None
    return None


def _readers(tape: Tape, value: int) -> list[object]:
    """Everything that reads a value, views of it and the result list included."""
    found: list[object] = [node for node in tape.nodes if value in node.inputs]
    return found + [r for r in tape.results if r == value]


def _written(tape: Tape, node: OpNode) -> bool:
    """Torch code writes into one of the node's inputs or outputs, so two equal calls may differ."""
    touched = {tape.base(v) for v in (*node.inputs, *node.outputs)}
    return any(
        isinstance(other, TorchNode) and not other.is_view and touched & {tape.base(v) for v in other.inputs}
        for other in tape.nodes
    )


def _rename_inputs(node: Node, rename: dict[int, int]) -> None:
    if not rename or not any(v in rename for v in node.inputs):
        return
    node.inputs = tuple(rename.get(v, v) for v in node.inputs)
    if isinstance(node, TorchNode):
        node.args, node.kwargs = pytree.tree_map(
            lambda x: Ref(rename.get(x.value, x.value)) if isinstance(x, Ref) else x,
            (node.args, node.kwargs),
            is_leaf=lambda x: isinstance(x, Ref),
        )


def drop_dead(tape: Tape) -> None:
    """Remove ops whose outputs nobody reads and views that nobody takes."""
    while True:
        live = {v for node in tape.nodes for v in node.inputs} | set(tape.results)
        kept = [node for node in tape.nodes if _needed(node, live)]
        if len(kept) == len(tape.nodes):
            return
        tape.nodes[:] = kept


def _needed(node: Node, live: set[int]) -> bool:
    if isinstance(node, OpNode):
        return node.call.op.effect or any(v in live for v in node.outputs)
    return not node.is_view or any(v in live for v in node.outputs)


CORE_RULES: tuple[Rule, ...] = (share_equal, fuse_gate, fuse_rotate_write)
