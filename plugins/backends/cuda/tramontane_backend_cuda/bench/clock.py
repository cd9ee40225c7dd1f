# SPDX-License-Identifier: Apache-2.0
"""Seconds of a piece of device work: the median over replays of a CUDA graph, each copy of the work on other memory.

On the host there is no graph and no cache worth rotating past: the work is timed once, so that smoke runs are short.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence

import torch
from attrs import frozen

Work = Callable[[], object]

CACHE_BYTES = 160 << 20
"""Memory that copies of the work go through together: more than twice the second-level cache of any card here."""
MOST_COPIES = 64
LEAST_LAUNCHES = 32
"""Pieces of work in a graph at least: the start of a graph costs 15 us, which is as much as some of them."""


def copies_for(nbytes: int) -> int:
    """Copies of a work over ``nbytes`` bytes that push each other out of the second-level cache."""
    return max(1, min(MOST_COPIES, -(-CACHE_BYTES // max(1, nbytes))))


@frozen
class Clock:
    """Times work on one device."""

    device: torch.device
    repeats: int = 25

    @property
    def real(self) -> bool:
        """Whether this is a card."""
        return self.device.type == "cuda"

    def seconds(self, works: Sequence[Work]) -> float:
        """Median seconds of one of several equal works on different memory, run one after the other."""
        for work in works[:2]:
            work()  # kernels are compiled, and caches of their makers filled
        if not self.real:
            begun = time.perf_counter()
            works[-1]()
            return time.perf_counter() - begun
        works = list(works) * -(-LEAST_LAUNCHES // len(works))
        graph, stream = torch.cuda.CUDAGraph(), torch.cuda.Stream(self.device)
        torch.cuda.synchronize(self.device)
        with torch.cuda.graph(graph, stream=stream):
            for work in works:
                work()
        return self.replays(graph.replay) / len(works)

    def replays(self, run: Work) -> float:
        """Median seconds of something that launches device work."""
        times = []
        for _ in range(self.repeats if self.real else 1):
            if not self.real:
                begun = time.perf_counter()
                run()
                times.append(time.perf_counter() - begun)
                continue
            start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
            start.record()
            run()
            end.record()
            end.synchronize()
            times.append(start.elapsed_time(end) / 1e3)
        return statistics.median(times)

    def wait(self) -> None:
        """Until everything launched is done."""
        if self.real:
            torch.cuda.synchronize(self.device)
