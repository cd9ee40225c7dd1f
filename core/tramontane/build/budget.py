# SPDX-License-Identifier: Apache-2.0
"""How memory is divided: weights, activations, logits, and what is left for the cache.

All numbers are bytes. Nothing is allocated here.
"""

from __future__ import annotations

from attrs import frozen

from tramontane.cache.spec import CacheLayout
from tramontane.errors import OutOfMemoryError
from tramontane.memory import format_bytes

CACHE_SHARE = 0.5
"""Share of the free memory that the cache may take where nothing else is said: a host has other work too."""
MAX_CACHE_BYTES = 8 << 30
"""Most that the cache takes unasked."""


@frozen(kw_only=True)
class MemoryPlan:
    """What a model takes on its device."""

    weights: int
    arena: int
    logits: int
    cache: int
    states: int = 0
    """Of recurrent layers: running sequences and snapshots."""
    adapters: int = 0
    """Those that are loaded with the model."""
    blocks: int
    free: int

    def describe(self) -> str:
        """One line for people."""
        parts = ("weights", "arena", "logits", "cache", "states", "adapters")
        sizes = ((name, getattr(self, name)) for name in parts)
        said = ", ".join(
            f"{name} {format_bytes(size)}" for name, size in sizes if size or name not in ("states", "adapters")
        )
        return f"{said} of {format_bytes(self.free)} free"


def budget_blocks(
    layout: CacheLayout,
    *,
    free: int,
    max_model_len: int,
    max_num_seqs: int,
    asked_bytes: int | None,
    asked_blocks: int | None,
) -> int:
    """How many blocks the pool gets, the null block included.

    Args:
        layout: What the layers cache.
        free: Bytes left after weights and activations.
        max_model_len: Tokens of the longest sequence.
        max_num_seqs: Most sequences at a time.
        asked_bytes: What the user gave to the cache.
        asked_blocks: An exact number, for tests.

    Raises:
        OutOfMemoryError: Not even one block per group fits.
    """
    if not layout.groups:
        return 2
    if asked_blocks is not None:
        return asked_blocks
    useful = max_num_seqs * layout.blocks_for(max_model_len) + 1
    allowed = asked_bytes if asked_bytes is not None else min(int(free * CACHE_SHARE), MAX_CACHE_BYTES)
    blocks = min(useful, layout.blocks_in(allowed))
    least = len(layout.groups) + 1
    if blocks < least:
        block = format_bytes(layout.block_bytes)
        raise OutOfMemoryError(
            f"the cache gets {format_bytes(allowed)}, but it needs {least} blocks of {block}",
            hint="give it more with --kv-memory, free memory, or use a smaller model or type",
        )
    return blocks
