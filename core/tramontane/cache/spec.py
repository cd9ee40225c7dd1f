# SPDX-License-Identifier: Apache-2.0
"""What each layer caches, and how the layers share one pool of blocks.

A layer declares a :class:`CacheSpec`. :func:`plan_layout` gathers layers that forget alike (same kind, same window,
same bytes per token) into groups. The layers of a group share one block table; a group's k-th layer lives in the k-th
of the physical storages, which the groups share too: every block id is a page of ``page_bytes`` in each storage, and
belongs to one group at a time. One pool thus serves full and windowed layers, whatever their mix turns out to need.

This module computes sizes and names; it never allocates.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from enum import StrEnum
from math import ceil, prod

import torch
from attrs import evolve, field, frozen

from tramontane.cache.entries import entry_elements
from tramontane.errors import PlanError

#: What one more group costs, as a share of the pool, when padding is weighed against the number of tables to keep.
GROUP_COST = 0.02


class CacheKind(StrEnum):
    """How a layer remembers."""

    FULL = "full"
    """Keys and values of every token."""
    WINDOW = "window"
    """Keys and values of the last ``window`` tokens, the current one included."""
    CHUNKED = "chunked"
    """Keys and values since the last multiple of ``window``."""
    LATENT = "latent"
    """One compressed vector per token (MLA); remembers every token."""
    STATE = "state"
    """A recurrent state of fixed size."""
    CROSS = "cross"
    """Keys and values of an encoder's output."""


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


@frozen(kw_only=True)
class CacheSpec:
    """What one layer caches.

    Raises:
        PlanError: The fields contradict each other (a window without a length, a state without shapes ...).
    """

    kind: CacheKind = field(default=CacheKind.FULL, converter=CacheKind)
    kv_heads: int = 1
    head_dim: int = 0
    """Length of one head's key; for ``latent`` the whole compressed vector, its rotary part included."""
    value_dim: int | None = None
    """Length of one head's value; ``None`` means ``head_dim``, and 0 for ``latent``, whose value is part of the key."""
    dtype: torch.dtype = torch.float32
    window: int | None = None
    """``window``: tokens a query sees, itself included. ``chunked``: length of a chunk."""
    states: tuple[tuple[tuple[int, ...], torch.dtype], ...] = ()
    """``state``: shape and dtype of each tensor of one sequence's state."""
    share_with: str | None = None
    """Name of the layer whose cache this layer reads; it then stores nothing of its own."""

    def __attrs_post_init__(self) -> None:
        if self.kind is CacheKind.STATE:
            if not self.states:
                raise PlanError("a state cache names no state tensors")
            return
        if self.head_dim <= 0 or self.kv_heads <= 0 or self.values < 0:
            raise PlanError(
                f"a {self.kind} cache needs positive sizes, got kv_heads={self.kv_heads}, head_dim={self.head_dim}, "
                f"value_dim={self.value_dim}"
            )
        windowed = self.kind in (CacheKind.WINDOW, CacheKind.CHUNKED)
        if windowed != (self.window is not None) or (self.window is not None and self.window <= 0):
            raise PlanError(f"a {self.kind} cache got window={self.window!r}")

    @property
    def values(self) -> int:
        """Length of one head's value."""
        if self.value_dim is not None:
            return self.value_dim
        return 0 if self.kind is CacheKind.LATENT else self.head_dim

    @property
    def bytes_per_token(self) -> int:
        """Bytes one token takes in this layer; 0 for a state."""
        if self.kind is CacheKind.STATE:
            return 0
        elements = entry_elements(self.head_dim, self.dtype) + entry_elements(self.values, self.dtype)
        return self.kv_heads * elements * self.dtype.itemsize

    @property
    def state_bytes(self) -> int:
        """Bytes of one sequence's state; 0 for kinds that cache tokens."""
        return sum(prod(shape) * dtype.itemsize for shape, dtype in self.states)

    def describe(self) -> str:
        """One line for plans and errors."""
        if self.kind is CacheKind.STATE:
            return f"state of {self.state_bytes} bytes"
        window = f" {self.window}" if self.window else ""
        shape = f"{self.kv_heads}x({self.head_dim}+{self.values})"
        return f"{self.kind}{window} {shape} {_name(self.dtype)}"


@frozen
class CacheGroup:
    """Layers that share a block table."""

    kind: CacheKind
    window: int | None
    block_tokens: int
    """Tokens in one block of this group."""
    layers: tuple[str, ...]

    @property
    def forgets(self) -> bool:
        """Whether old blocks can be given back while the sequence runs."""
        return self.window is not None

    def first_needed(self, position: int) -> int:
        """The earliest position that a query at ``position``, or any later one, reads."""
        if self.window is None:
            return 0
        if self.kind is CacheKind.CHUNKED:
            return position - position % self.window
        return max(0, position - self.window + 1)


@frozen
class LayerCache:
    """Where one layer's cache lives."""

    spec: CacheSpec
    group: int
    """Index of the block table; -1 for a state, which is found by the sequence's state slot."""
    storage: int
    """Index among the block storages, or among the state storages for a state."""
    block_tokens: int
    """Tokens in a block; 0 for a state."""


@frozen
class CacheLayout:
    """Every layer's place. A backend makes ``storages`` buffers of ``num_blocks`` pages of ``page_bytes`` from it.

    A block of a group holds ``block_tokens`` tokens of each of the group's layers: the page of that id in storage k
    belongs to the group's k-th layer. Block 0 is never owned: padding writes there.
    """

    groups: tuple[CacheGroup, ...]
    layers: Mapping[str, LayerCache]
    storages: int
    page_bytes: int
    block_tokens: int
    """Tokens in a block of the layers that cache most per token."""
    state_layers: tuple[str, ...] = ()
    """Layers with a recurrent state, in storage order; state slot 0 is padding."""

    @property
    def block_bytes(self) -> int:
        """Bytes of one block over all storages."""
        return self.page_bytes * len(self.used_storages)

    @property
    def state_bytes(self) -> int:
        """Bytes of one state slot over all layers."""
        return sum(self.layers[name].spec.state_bytes for name in self.state_layers)

    @property
    def alignment(self) -> int:
        """Tokens between two lengths at which every group has a block boundary: what prefix hits are rounded to."""
        return max((group.block_tokens for group in self.groups), default=self.block_tokens)

    @property
    def hash_tokens(self) -> int:
        """Tokens under one key of the prefix chain: the smallest block."""
        return min((group.block_tokens for group in self.groups), default=self.block_tokens)

    def only(self, names: Collection[str]) -> CacheLayout:
        """The part of some layers, with the same ids and pages: a place among several allocates just these."""
        layers = {name: place for name, place in self.layers.items() if name in names}
        return evolve(self, layers=layers, state_layers=tuple(name for name in self.state_layers if name in names))

    @property
    def used_storages(self) -> tuple[int, ...]:
        """Storages that some layer has pages in."""
        return tuple(sorted({place.storage for place in self.layers.values() if place.group >= 0}))

    def blocks_in(self, budget: int) -> int:
        """How many blocks, the null block included, fit into ``budget`` bytes."""
        return budget // self.block_bytes if self.block_bytes else 0

    def blocks_for(self, tokens: int) -> int:
        """Blocks that one sequence of ``tokens`` tokens holds at most while it decodes, over all groups."""
        return sum(most_blocks(group, tokens) for group in self.groups)

    def longest(self, num_blocks: int, most: int) -> int:
        """The longest sequence, up to ``most`` tokens, that ``num_blocks`` blocks (null block included) can hold."""
        low, high = 0, most
        while low < high:
            middle = (low + high + 1) // 2
            low, high = (middle, high) if self.blocks_for(middle) <= num_blocks - 1 else (low, middle - 1)
        return low


def most_blocks(group: CacheGroup, tokens: int) -> int:
    """Blocks of one group that a decoding sequence of ``tokens`` tokens holds at most.

    A window that starts inside a block touches one block more than its length, and a step in flight keeps the block
    that has just left it: hence the two extra ones.
    """
    whole = ceil(tokens / group.block_tokens)
    return whole if group.window is None else min(whole, ceil(group.window / group.block_tokens) + 2)


def plan_layout(specs: Mapping[str, CacheSpec], block_tokens: int = 32) -> CacheLayout:
    """Give every layer its group and storage.

    Args:
        specs: Layer name -> what it caches, in the model's order.
        block_tokens: Tokens per block of the layers with most bytes per token. Leaner layers get a power of two times
            as many, as far as the page allows.

    Raises:
        PlanError: A layer shares with one that does not exist, does not cache alike or shares itself; a kind that no
            part of the engine can fill yet.
    """
    if block_tokens <= 0:
        raise PlanError(f"block_tokens must be positive, got {block_tokens}")
    own = {name: spec for name, spec in specs.items() if spec.share_with is None}
    crossing = [name for name, spec in own.items() if spec.kind is CacheKind.CROSS]
    if crossing:
        raise PlanError(f"no request carries encoder inputs yet, which cross caches need: {', '.join(crossing)}")
    paged = {name: spec for name, spec in own.items() if spec.kind is not CacheKind.STATE}
    widest = max((spec.bytes_per_token for spec in paged.values()), default=0)
    groups = tuple(_groups(paged, widest, block_tokens))
    layers: dict[str, LayerCache] = {}
    for index, group in enumerate(groups):
        for storage, name in enumerate(group.layers):
            layers[name] = LayerCache(own[name], index, storage, group.block_tokens)
    states = tuple(name for name, spec in own.items() if spec.kind is CacheKind.STATE)
    for storage, name in enumerate(states):
        layers[name] = LayerCache(own[name], -1, storage, 0)
    for name, spec in specs.items():
        if spec.share_with is not None:
            layers[name] = _shared(name, spec, specs, layers)
    storages = max((len(group.layers) for group in groups), default=0)
    return CacheLayout(groups, layers, storages, widest * block_tokens, block_tokens, states)


def _shared(name: str, spec: CacheSpec, specs: Mapping[str, CacheSpec], layers: Mapping[str, LayerCache]) -> LayerCache:
    """The place of a layer that reads another layer's cache."""
    target = specs.get(spec.share_with or "")
    if target is None or target.share_with is not None:
        fault = "does not exist" if target is None else "shares another layer's cache itself"
        raise PlanError(f"layer {name} shares the cache of {spec.share_with}, which {fault}")
    place = layers[spec.share_with or ""]
    if spec.describe() != target.describe():
        raise PlanError(f"layer {name} ({spec.describe()}) cannot share {spec.share_with} ({target.describe()})")
    return place


def _groups(paged: Mapping[str, CacheSpec], widest: int, block_tokens: int) -> list[CacheGroup]:
    """Split the layers by how they forget, each kind into groups of about equal size so that pages are used fully."""
    alike: dict[tuple[CacheKind, int | None, int], list[str]] = {}
    for name, spec in paged.items():
        alike.setdefault((spec.kind, spec.window, spec.bytes_per_token), []).append(name)
    size = _group_size([len(names) for names in alike.values()])
    groups = []
    for (kind, window, bytes_per_token), names in alike.items():
        tokens = block_tokens
        while 2 * tokens * bytes_per_token <= widest * block_tokens:
            tokens *= 2
        count = ceil(len(names) / size)
        each = ceil(len(names) / count)
        for start in range(0, len(names), each):
            groups.append(CacheGroup(kind, window, tokens, tuple(names[start : start + each])))
    return groups


def _group_size(counts: list[int]) -> int:
    """Layers per group that waste the least: empty pages of short groups against the cost of one more table."""

    def waste(size: int) -> float:
        groups = sum(ceil(count / size) for count in counts)
        return (groups * size - sum(counts)) / max(1, sum(counts)) + GROUP_COST * groups

    return min(range(1, max(counts, default=1) + 1), key=lambda size: (waste(size), -size), default=1)
