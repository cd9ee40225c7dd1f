# SPDX-License-Identifier: Apache-2.0
"""Small engines over the mock runner, and what their tests ask of every run."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from random import Random
from typing import Any

import torch

from tramontane.cache.spec import CacheSpec, plan_layout
from tramontane.engine.config import EngineConfig
from tramontane.engine.core import EngineCore
from tramontane.requests import Delta, EngineRequest, FinishReason, SamplingParams, Task
from tramontane.testing.mock import MockRunner, expected

FULL = CacheSpec(head_dim=32)
STATE = CacheSpec(kind="state", states=(((2,), torch.float32),))
SPECS = {
    "full": {"f": FULL},
    "window": {"w": CacheSpec(kind="window", window=11, head_dim=8)},
    "mixed": {"f": FULL, "w": CacheSpec(kind="window", window=11, head_dim=32)},
    "sizes": {
        "f": FULL,
        "w": CacheSpec(kind="window", window=11, head_dim=8),
        "c": CacheSpec(kind="chunked", window=16, head_dim=16),
    },
    "latent": {"l": CacheSpec(kind="latent", head_dim=32), "s": STATE},
    "states": {"f": FULL, "s": STATE},
}
"""Cache specifications by name: what a model's layers may look like to the cache."""

VOCABULARY = 50
EOS = (3,)
MODEL_LENGTH = 160


class PliableRunner(MockRunner):
    """A mock whose methods a test can replace."""


def small_engine(name: str = "full", blocks: int = 200, *, behind: bool = False, **config: Any) -> EngineCore:
    """An engine over the mock: blocks of 4 tokens, steps padded to multiples of 3.

    Args:
        name: Which of ``SPECS``.
        blocks: Blocks, the null block included.
        behind: Whether the mock runs steps as late as possible.
        config: Fields of the engine's configuration.
    """
    layout = plan_layout(SPECS[name], block_tokens=4)
    runner = PliableRunner(layout, blocks, max_model_len=MODEL_LENGTH, vocab_size=VOCABULARY, behind=behind, pad=3)
    return EngineCore(runner, EngineConfig(**{"max_num_seqs": 8, "max_batched_tokens": 64, **config}))


def runner_of(core: EngineCore) -> PliableRunner:
    """The mock under an engine."""
    if not isinstance(core.runner, PliableRunner):
        raise TypeError("this engine does not run the mock")
    return core.runner


def ask(
    name: str, prompt: Iterable[int], *, task: Task = Task.GENERATE, priority: int = 0, **sampling: Any
) -> EngineRequest:
    """A request; 8 tokens and no EOS unless said otherwise."""
    params = SamplingParams(**{"max_tokens": 8, "ignore_eos": True, **sampling})
    return EngineRequest(
        id=name, prompt_token_ids=tuple(prompt), sampling=params, task=task, eos_token_ids=EOS, priority=priority
    )


def similar_prompts(draw: Random, count: int, longest: int = 60) -> list[tuple[int, ...]]:
    """Prompts of which many begin alike."""
    texts = [[draw.randrange(VOCABULARY) for _ in range(longest)] for _ in range(4)]
    prompts = []
    for _ in range(count):
        tail = [draw.randrange(VOCABULARY) for _ in range(draw.randint(1, 5))]
        prompts.append((*draw.choice(texts)[: draw.randint(0, longest - 5)], *tail))
    return prompts


class Outcome:
    """What came back, by request and choice."""

    def __init__(self) -> None:
        self.tokens: dict[tuple[str, int], list[int]] = defaultdict(list)
        self.ends: dict[tuple[str, int], Delta] = {}
        self.first: dict[tuple[str, int], Delta] = {}

    def take(self, deltas: list[Delta]) -> None:
        """Note deltas; none may follow a sequence's end."""
        for delta in deltas:
            name = (delta.request_id, delta.index)
            if name in self.ends:
                raise AssertionError(f"{name} went on after its end")
            self.first.setdefault(name, delta)
            self.tokens[name] += delta.token_ids
            if delta.finish_reason is not None:
                self.ends[name] = delta

    def reason(self, name: str, index: int = 0) -> FinishReason | None:
        """Why a choice ended."""
        return self.ends[name, index].finish_reason


def finish(core: EngineCore, outcome: Outcome | None = None, most: int = 5_000) -> Outcome:
    """Run until nothing is left; the bookkeeping must then add up."""
    outcome = outcome or Outcome()
    for _ in range(most):
        if not core.has_work:
            break
        outcome.take(core.next_deltas())
    core.check_integrity()
    if core.has_work or core.stats().blocks_used or runner_of(core).active:
        raise AssertionError(f"something is left: {core.stats()}, slots {sorted(runner_of(core).active)}")
    return outcome


def right(core: EngineCore, asked: EngineRequest, index: int = 0) -> list[int]:
    """The tokens a choice must get."""
    return expected(core.runner.cache_layout, VOCABULARY, asked, core.max_len, index)
