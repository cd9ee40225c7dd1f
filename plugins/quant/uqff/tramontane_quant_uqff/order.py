# SPDX-License-Identifier: Apache-2.0
"""Which layer a numbered blob of versions 0.1 and 0.2 is.

The files do not say: mistral.rs knew the order by the code of each model. Nearly all of them are one of a few layouts,
told apart by how many layers there are and by which tensors are beside them: the head, then block by block the
attention and what follows it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from typing import Any

from attrs import frozen

from tramontane.errors import CheckpointError

Shape = tuple[int, ...]

HEAD = "lm_head"
BLOCKS = "model.layers"
COUNTS = ("num_experts", "num_local_experts", "n_routed_experts")
"""Keys of the configuration that say how many experts a block has."""
_ATTENTION = ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.o_proj")


@frozen
class Layout:
    """The layers of a block, in order.

    Attributes:
        modules: Their names.
        beside: The end of a residual tensor's name, which tells this layout from another of as many layers.
        experts: What is stored for each expert, in this order; ``{e}`` is its number. Blocks without a mixture have the
            rest of ``modules`` instead.
        router: A block has experts if this module's weight is a residual tensor; empty if all have.
    """

    modules: tuple[str, ...]
    beside: str = ""
    experts: tuple[str, ...] = ()
    router: str = ""
    attention: int = len(_ATTENTION)
    """How many of the modules come before the mixture."""


LAYOUTS = (
    Layout((*_ATTENTION, "mlp.gate_proj", "mlp.up_proj", "mlp.down_proj")),
    Layout(("self_attn.qkv_proj", "self_attn.o_proj", "mlp.gate_up_proj", "mlp.down_proj")),
    Layout((*_ATTENTION[:3], "self_attn.dense", "mlp.fc1", "mlp.fc2"), beside=".final_layernorm.weight"),
    Layout((*_ATTENTION, "mlp.c_fc", "mlp.c_proj"), beside=".norm.bias"),
    Layout(
        (*_ATTENTION, "mlp.gate_proj", "mlp.up_proj", "mlp.down_proj"),
        experts=("mlp.experts.{e}.gate_proj", "mlp.experts.{e}.up_proj", "mlp.experts.{e}.down_proj"),
        router="mlp.gate",
    ),
    Layout(
        (*_ATTENTION, "block_sparse_moe.gate"),
        experts=tuple(f"block_sparse_moe.experts.{{e}}.w{number}" for number in (1, 2, 3)),
        attention=5,
    ),
)


def names_of(
    shapes: Sequence[Shape], config: Mapping[str, Any], beside: Mapping[str, object], where: str
) -> Sequence[str]:
    """Names of the modules that blobs of these shapes are.

    Args:
        shapes: Logical shapes of the layers.
        config: Content of ``config.json``.
        beside: Names of the residual tensors. A module whose weight is there was not quantized.
        where: For messages.

    Raises:
        CheckpointError: No known layout has as many layers.
    """
    depth = config.get("num_hidden_layers")
    if not isinstance(depth, int) or isinstance(depth, bool) or depth < 1:
        raise CheckpointError(f"{where}: the configuration does not say how many blocks the model has")
    for layout in LAYOUTS:
        if layout.beside and not any(name.endswith(layout.beside) for name in beside):
            continue
        stored = (name for name in _names(layout, depth, shapes, config, beside) if f"{name}.weight" not in beside)
        found = list(islice(stored, len(shapes) + 1))
        if len(found) == len(shapes):
            return found
    raise CheckpointError(
        f"{where} has {len(shapes)} numbered layers for {depth} blocks, which is no order that is known here",
        hint="write the model again with a newer mistral.rs, which stores names",
    )


def _names(
    layout: Layout, depth: int, shapes: Sequence[Shape], config: Mapping[str, Any], beside: Mapping[str, object]
) -> Iterator[str]:
    yield HEAD
    stacked = any(len(shape) == 3 for shape in shapes)
    for number in range(depth):
        block = f"{BLOCKS}.{number}"
        mixed = layout.experts and (not layout.router or f"{block}.{layout.router}.weight" in beside)
        for name in layout.modules[: layout.attention] if mixed else layout.modules:
            yield f"{block}.{name}"
        if mixed:
            yield from (f"{block}.{name}" for name in _experts(layout, config, stacked))


def _experts(layout: Layout, config: Mapping[str, Any], stacked: bool) -> Iterator[str]:
    if stacked:
        yield from (name.replace(".{e}", "") for name in layout.experts)
        return
    count = next((config[key] for key in COUNTS if isinstance(config.get(key), int)), 0)
    for expert in range(count):
        yield from (name.format(e=expert) for name in layout.experts)
