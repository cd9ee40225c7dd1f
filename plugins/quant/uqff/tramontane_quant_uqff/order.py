# SPDX-License-Identifier: Apache-2.0
"""Which layer a numbered blob of versions 0.1 and 0.2 is.

The files do not say: mistral.rs knew the order by the code of each model. Nearly all of them are one of a few layouts,
told apart by how many layers there are and by which tensors are beside them: the head, then block by block the
attention and what follows it. Writing those versions goes by the same layouts."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from itertools import islice
from typing import Any

from attrs import frozen

from tramontane.errors import CheckpointError, PlanError

Shape = tuple[int, ...]

HEAD = "lm_head"
BLOCKS = "model.layers"
COUNTS = ("num_experts", "num_local_experts", "n_routed_experts")
"""Keys of the configuration that say how many experts a block has."""
SHARED = "n_shared_experts"
"""Key of the configuration that says whether there are experts for every token."""
RENAMED = {"PhiForCausalLM": {"model.norm": "model.final_layernorm"}}
"""Class -> what mistral.rs called a module among the residual tensors -> what the model calls it."""
_ATTENTION = ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.o_proj")


@frozen
class Layout:
    """The layers of a block, in order.

    Attributes:
        modules: Their names.
        beside: The end of a residual tensor's name, which tells this layout from another of as many layers.
        lacks: The end of a name that no residual tensor has, for the same.
        experts: What is stored for each expert, in this order; ``{e}`` is its number. Blocks without a mixture have the
            rest of ``modules`` instead.
        shared: What is stored for the experts of every token, after all others.
        router: A block has experts if this module's weight is a residual tensor; empty if all have.
    """

    modules: tuple[str, ...]
    beside: str = ""
    lacks: str = ""
    experts: tuple[str, ...] = ()
    shared: tuple[str, ...] = ()
    router: str = ""
    attention: int = len(_ATTENTION)
    """How many of the modules come before the mixture."""

    def fits(self, beside: Iterable[str]) -> bool:
        """Whether the residual tensors are those of this layout."""
        wanted = not self.beside or any(name.endswith(self.beside) for name in beside)
        return wanted and not (self.lacks and any(name.endswith(self.lacks) for name in beside))


def _latent(*queries: str, beside: str) -> Layout:
    """DeepSeek's attention, with a mixture in most blocks."""
    attention = (*queries, "self_attn.kv_a_proj_with_mqa", "self_attn.kv_b_proj", "self_attn.o_proj")
    gated = ("gate_proj", "up_proj", "down_proj")
    return Layout(
        (*attention, *(f"mlp.{name}" for name in gated)),
        beside=beside,
        experts=tuple(f"mlp.experts.{{e}}.{name}" for name in gated),
        shared=tuple(f"mlp.shared_experts.{name}" for name in gated),
        router="mlp.gate",
        attention=len(attention),
    )


LAYOUTS = (
    _latent("self_attn.q_a_proj", "self_attn.q_b_proj", beside=".q_a_layernorm.weight"),
    _latent("self_attn.q_proj", beside=".kv_a_layernorm.weight"),
    Layout((*_ATTENTION, "mlp.gate_proj", "mlp.up_proj", "mlp.down_proj")),
    Layout(("self_attn.qkv_proj", "self_attn.o_proj", "mlp.gate_up_proj", "mlp.down_proj")),
    Layout((*_ATTENTION[:3], "self_attn.dense", "mlp.fc1", "mlp.fc2"), lacks=".post_attention_layernorm.weight"),
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
        if not layout.fits(beside):
            continue
        stored = (name for name in _names(layout, depth, shapes, config, beside) if f"{name}.weight" not in beside)
        found = list(islice(stored, len(shapes) + 1))
        if len(found) == len(shapes):
            return found
    raise CheckpointError(
        f"{where} has {len(shapes)} numbered layers for {depth} blocks, which is no order that is known here",
        hint="write the model again with a newer mistral.rs, which stores names",
    )


def order_of(
    modules: Collection[str], config: Mapping[str, Any], beside: Mapping[str, object], where: str
) -> Sequence[str]:
    """The modules that are numbered when a model is written, in order.

    Args:
        modules: Names of the model's matrices but for its embedding.
        config: Content of ``config.json``.
        beside: Names of all tensors of the model.
        where: For messages.

    Raises:
        PlanError: The model's matrices are those of no known layout.
    """
    routers = {layout.router for layout in LAYOUTS if layout.router}
    needed = {name for name in modules if not name.endswith(tuple(routers))}
    for layout in LAYOUTS:
        found = list(_names(layout, int(config["num_hidden_layers"]), (), config, beside))
        if layout.fits(beside) and needed <= set(found) <= set(modules):
            return found
    raise PlanError(
        f"{where}: UQFF 0.2 numbers its layers, and in which order those of this model come is not known",
        hint="write version 1.2, which stores names",
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
            yield from (f"{block}.{name}" for name in layout.shared if config.get(SHARED))


def _experts(layout: Layout, config: Mapping[str, Any], stacked: bool) -> Iterator[str]:
    if stacked:
        yield from (name.replace(".{e}", "") for name in layout.experts)
        return
    count = next((config[key] for key in COUNTS if isinstance(config.get(key), int)), 0)
    for expert in range(count):
        yield from (name.format(e=expert) for name in layout.experts)
