# SPDX-License-Identifier: Apache-2.0
"""A snapshot of how an engine is doing."""

from __future__ import annotations

from attrs import frozen


@frozen(kw_only=True)
class EngineStats:
    """Counts since the start, and the state at the moment of the snapshot."""

    running: int
    """Sequences that hold blocks and run."""
    waiting: int
    """Sequences that wait to run, preempted ones included."""
    blocks: int
    """Blocks of the pool, the null block excluded."""
    blocks_used: int
    """Blocks that sequences hold."""
    blocks_cached: int
    """Blocks, held or free, that can be found by later prompts."""
    evictions: int
    """Free blocks whose remembered contents were overwritten."""
    prefix_queries: int
    """Tokens that were looked up in the prefix cache."""
    prefix_hits: int
    """Tokens of these that were found."""
    preemptions: int
    steps: int
    failed_steps: int
    requests: int
    """Requests that were accepted."""
    prompt_tokens: int
    """Prompt (and recomputed) tokens that were computed."""
    sampled_tokens: int
    """Tokens that were sampled and kept."""
    step_s: float
    """Running mean of a step's seconds."""
    decode_s: float
    """Running mean of the seconds of steps without prompt tokens."""
    tokens_per_s: float
    """Running mean of tokens computed per second, prompt tokens included."""

    @property
    def usage(self) -> float:
        """Part of the pool that is held, 0 to 1."""
        return self.blocks_used / self.blocks if self.blocks else 0.0

    @property
    def prefix_hit_rate(self) -> float:
        """Part of the looked-up tokens that was found, 0 to 1."""
        return self.prefix_hits / self.prefix_queries if self.prefix_queries else 0.0
