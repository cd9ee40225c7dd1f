# SPDX-License-Identifier: Apache-2.0
"""How memory is divided: weights, activations, logits, and what is left for the cache.

All numbers are bytes. Nothing is allocated here.
"""

from __future__ import annotations

from attrs import frozen

from tramontane.cache.spec import CacheLayout
from tramontane.errors import OutOfMemoryError
from tramontane.memory import format_bytes


@frozen
class CacheLimits:
    """How much of the memory that is left the cache takes unasked."""

    share: float
    most: int | None
    """Bytes."""


SHARED_HOST = CacheLimits(share=0.5, most=8 << 30)
"""Of a machine that has other work too."""
OWN_DEVICE = CacheLimits(share=0.95, most=None)
"""Of a device that is there for the model: the rest stays free for fragments and other programs."""


@frozen(kw_only=True)
class MemoryPlan:
    """What a model takes on its device."""

    weights: int
    arena: int
    logits: int
    cache: int
    graphs: int = 0
    """Of recorded steps: their own memory and a second set of temporaries."""
    states: int = 0
    """Of recurrent layers: running sequences and snapshots."""
    adapters: int = 0
    """Those that are loaded with the model."""
    blocks: int
    free: int

    def describe(self) -> str:
        """One line for people."""
        parts = ("weights", "arena", "logits", "graphs", "cache", "states", "adapters")
        sizes = ((name, getattr(self, name)) for name in parts)
        said = ", ".join(
            f"{name} {format_bytes(size)}"
            for name, size in sizes
            if size or name not in ("states", "graphs", "adapters")
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
    limits: CacheLimits = SHARED_HOST,
    exact: bool = False,
) -> int:
    """How many blocks the pool gets, the null block included.

    Args:
        layout: What the layers cache.
        free: Bytes left after weights and activations.
        max_model_len: Tokens of the longest sequence.
        max_num_seqs: Most sequences at a time.
        asked_bytes: What the user gave to the cache.
        asked_blocks: An exact number, for tests.
        limits: What the cache takes where nothing is asked.
        exact: ``free`` was measured on a device, which has no more: asking for more is an error.

    Raises:
        OutOfMemoryError: Not even one block per group fits, or more is asked for than there is.
    """
    if not layout.groups:
        return 2
    if asked_blocks is not None:
        return asked_blocks
    useful = max_num_seqs * layout.blocks_for(max_model_len) + 1
    if exact and asked_bytes is not None and asked_bytes > free:
        raise OutOfMemoryError(
            f"the cache was given {format_bytes(asked_bytes)}, but weights and steps leave {format_bytes(free)}",
            hint="give it less with --kv-memory, or take fewer --max-batched-tokens or --max-num-seqs",
        )
    unasked = int(free * limits.share) if limits.most is None else min(int(free * limits.share), limits.most)
    allowed = asked_bytes if asked_bytes is not None else unasked
    blocks = min(useful, layout.blocks_in(allowed))
    least = len(layout.groups) + 1
    if blocks < least:
        block = format_bytes(layout.block_bytes)
        raise OutOfMemoryError(
            f"the cache gets {format_bytes(allowed)}, but it needs {least} blocks of {block}",
            hint="give it more with --kv-memory, free memory, or use a smaller model or type",
        )
    return blocks
