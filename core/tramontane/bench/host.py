# SPDX-License-Identifier: Apache-2.0
"""What a step costs on the host beside the model: ``python -m tramontane.bench.host``.

Drives the real engine core (scheduler, cache, batch preparation, deltas) with a runner that computes nothing, decoding
at a steady batch size, and prints microseconds per step: the median and the 99th percentile, and the median's parts.
"""

from __future__ import annotations

import argparse
import gc
import json
import statistics
import sys
import time

import torch
from attrs import define, field

from tramontane.cache.spec import CacheLayout, CacheSpec, plan_layout
from tramontane.engine.config import EngineConfig
from tramontane.engine.core import EngineCore
from tramontane.engine.runner import StepResult
from tramontane.prepare import BatchBuffers
from tramontane.requests import EngineRequest, SamplingParams
from tramontane.sequence import Sequence, StepPlan

#: Batch size -> microseconds that a step may cost the host.
BUDGET_US = {1: 150.0, 64: 400.0}
VOCABULARY = 32_000
#: Settling steps before the measured ones.
WARM_UP = 100


@define(eq=False)
class NullPending:
    """A step that is done."""

    samples: int

    def result(self) -> StepResult:
        """The same token for everyone."""
        return StepResult([7] * self.samples)


@define(eq=False)
class NullRunner:
    """Builds every batch and answers at once with the same token."""

    cache_layout: CacheLayout
    num_blocks: int
    max_model_len: int
    rows: int
    vocab_size: int = VOCABULARY
    build_s: float = 0.0
    buffers: BatchBuffers = field(init=False)
    sampled: torch.Tensor = field(init=False)

    def __attrs_post_init__(self) -> None:
        self.sampled = torch.zeros(self.rows, dtype=torch.int64)
        self.buffers = BatchBuffers(
            self.cache_layout,
            max_tokens=2048,
            max_rows=self.rows,
            max_outputs=self.rows,
            max_model_len=self.max_model_len,
        )

    def launch(self, plan: StepPlan) -> NullPending:
        """Build the batch."""
        begun = time.perf_counter()
        self.buffers.build(plan, self.sampled)
        self.build_s += time.perf_counter() - begun
        return NullPending(plan.samples)

    def check(self, request: EngineRequest) -> None:
        """Everything can be served."""

    def started(self, sequence: Sequence) -> None:
        """Nothing to set up."""

    def dropped(self, sequence: Sequence) -> None:
        """Nothing to forget."""


def measure(batch: int, *, steps: int, prompt: int, groups: int, overlap: bool) -> dict[str, float]:
    """Decode with ``batch`` sequences; microseconds per step.

    Args:
        batch: Sequences that decode together.
        steps: Steps measured.
        prompt: Tokens of each sequence before.
        groups: Cache groups (the first one full, the others windowed).
        overlap: Launch a step before the one before it is read.
    """
    specs = {"full": CacheSpec(head_dim=64)}
    specs |= {f"window{i}": CacheSpec(kind="window", window=128 << i, head_dim=64) for i in range(groups - 1)}
    layout = plan_layout(specs)
    length = prompt + steps + WARM_UP + 16
    runner = NullRunner(layout, batch * layout.blocks_for(length) + 1, length, batch)
    core = EngineCore(runner, EngineConfig(max_num_seqs=batch, overlap=overlap, max_prompt_tokens=2048))
    for number in range(batch):
        ids = tuple((number * 31 + position) % VOCABULARY for position in range(prompt))
        core.add(EngineRequest(id=str(number), prompt_token_ids=ids, sampling=SamplingParams(max_tokens=None)))
    while len(core.scheduler.running) < batch or any(len(s.tokens) == prompt for s in core.scheduler.running):
        core.next_deltas()
    for _ in range(WARM_UP):
        core.next_deltas()
    runner.build_s = 0.0
    times = []
    gc.collect()
    for _ in range(steps):
        begun = time.perf_counter()
        core.next_deltas()
        times.append((time.perf_counter() - begun) * 1e6)
    times.sort()
    return {
        "batch": batch,
        "groups": groups,
        "overlap": float(overlap),
        "median_us": statistics.median(times),
        "p99_us": times[int(len(times) * 0.99)],
        "prepare_us": runner.build_s / steps * 1e6,
    }


def main(arguments: list[str] | None = None) -> int:
    """Print the table; the exit status is 1 if a budget is exceeded."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0] if __doc__ else None)
    parser.add_argument("--batch", type=int, nargs="+", default=[1, 8, 64])
    parser.add_argument("--groups", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--steps", type=int, default=1000)
    parser.add_argument("--prompt", type=int, default=512)
    parser.add_argument("--json", action="store_true", help="print one JSON list")
    options = parser.parse_args(arguments)
    results = [
        measure(batch, steps=options.steps, prompt=options.prompt, groups=groups, overlap=overlap)
        for groups in options.groups
        for overlap in (False, True)
        for batch in options.batch
    ]
    over = [r for r in results if r["groups"] == 1 and r["median_us"] > BUDGET_US.get(int(r["batch"]), float("inf"))]
    if options.json:
        print(json.dumps(results))
    else:
        print("scheduler, batch preparation and bookkeeping, microseconds per decode step")
        print(f"{'batch':>6} {'groups':>7} {'overlap':>8} {'median':>8} {'p99':>8} {'of it prepare':>14}")
        for r in results:
            overlap = "on" if r["overlap"] else "off"
            print(
                f"{r['batch']:>6} {r['groups']:>7} {overlap:>8} {r['median_us']:>8.1f} {r['p99_us']:>8.1f} "
                f"{r['prepare_us']:>14.1f}"
            )
        for r in over:
            print(
                f"over budget: batch {r['batch']} took {r['median_us']:.1f}, allowed {BUDGET_US[int(r['batch'])]:.0f}"
            )
    return 1 if over else 0


if __name__ == "__main__":
    sys.exit(main())
