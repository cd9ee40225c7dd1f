# SPDX-License-Identifier: Apache-2.0
"""How an engine is to run. One frozen record, validated when made."""

from __future__ import annotations

from collections.abc import Iterator

from attrs import frozen

from tramontane.errors import ConfigError


@frozen(kw_only=True)
class EngineConfig:
    """Settings of one engine.

    Raises:
        ConfigError: Values out of range; all are named at once.
    """

    max_num_seqs: int = 64
    """Most sequences that run at a time."""
    max_batched_tokens: int = 2048
    """Most tokens of one step."""
    block_tokens: int = 32
    """Tokens in one cache block (of the layers that cache most per token)."""
    num_blocks: int | None = None
    """Blocks of the pool; ``None`` lets the memory budget decide."""
    prefix_cache: bool = True
    """Reuse the cache of equal beginnings."""
    state_snapshots: int = 64
    """Saved recurrent states kept for prefix hits; only models with recurrent layers use it."""
    overlap: bool = False
    """Launch a step before the tokens of the one before it are read."""
    max_prompt_tokens: int = 1024
    """Most prompt tokens of a step that also decodes: what bounds the pause that a new prompt causes others."""
    prompt_seconds: float = 0.1
    """Most seconds of prompt work in a step that also decodes, by the measured speed."""
    stream_interval: float = 0.016
    """Least seconds between two deliveries to a reader: tokens that come faster go together. First tokens and ends do
    not wait; 0 delivers every step."""

    def __attrs_post_init__(self) -> None:
        wrong = list(self._faults())
        if wrong:
            raise ConfigError("wrong engine settings: " + "; ".join(wrong))

    def _faults(self) -> Iterator[str]:
        for name in ("max_num_seqs", "max_batched_tokens", "block_tokens", "max_prompt_tokens"):
            value = getattr(self, name)
            if not isinstance(value, int) or isinstance(value, bool) or value < 1:
                yield f"{name} must be a whole number above 0, got {value!r}"
        if self.num_blocks is not None and (not isinstance(self.num_blocks, int) or self.num_blocks < 2):
            yield f"num_blocks must be a whole number above 1 (block 0 holds padding), got {self.num_blocks!r}"
        if not isinstance(self.state_snapshots, int) or self.state_snapshots < 0:
            yield f"state_snapshots must be a whole number not below 0, got {self.state_snapshots!r}"
        if not isinstance(self.prompt_seconds, int | float) or not self.prompt_seconds > 0:
            yield f"prompt_seconds must be above 0, got {self.prompt_seconds!r}"
        if not isinstance(self.stream_interval, int | float) or not 0 <= self.stream_interval <= 10:
            yield f"stream_interval must be from 0 to 10 seconds, got {self.stream_interval!r}"
        whole = isinstance(self.max_batched_tokens, int) and isinstance(self.max_num_seqs, int)
        if whole and self.max_batched_tokens < self.max_num_seqs:
            yield (
                f"max_batched_tokens ({self.max_batched_tokens}) must not be below max_num_seqs ({self.max_num_seqs}): "
                "every running sequence decodes one token a step"
            )
