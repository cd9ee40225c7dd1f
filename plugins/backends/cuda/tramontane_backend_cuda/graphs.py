# SPDX-License-Identifier: Apache-2.0
"""Steps as CUDA graphs, one per padded size, recorded when a size is met for the second time.

The first step of a size runs by its own code: kernels are compiled, and its result counts. The second one is recorded
and replayed, and so is every later one. Whatever a step depends on lies in memory at fixed addresses. All graphs share
one pool of temporaries, since they run one after the other.

What records is a :class:`Recorder`, the one place that knows torch's graphs; tests put another there.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Hashable
from typing import Any, Protocol

import torch
from attrs import define, field
from torch import Tensor

from tramontane.backends.base import Padding

_log = logging.getLogger(__name__)

Work = Callable[[], tuple[Tensor, ...]]

LARGEST = 512
"""Tokens of the largest recorded step. Above, kernels outlast their launches, and prompts go through stock kernels that
know the rows' lengths."""
MOST_GRAPHS = 128
"""Graphs kept; a size comes in a few kinds (how rows are sampled)."""


class Recorded(Protocol):
    """Work that was recorded."""

    results: tuple[Tensor, ...]
    """Where a replay writes."""

    def replay(self) -> None:
        """Do the work on what the memory holds now."""
        ...


class Recorder(Protocol):
    """Records work without doing it."""

    def record(self, work: Work) -> Recorded:
        """Note the work.

        Raises:
            RuntimeError: It cannot be recorded: it waits for the device, or allocates in a way that a replay cannot.
        """
        ...


@define(eq=False)
class _Graph:
    """A CUDA graph."""

    graph: torch.cuda.CUDAGraph
    results: tuple[Tensor, ...]

    def replay(self) -> None:
        """Launch it on the current stream."""
        self.graph.replay()


@define(eq=False)
class GraphRecorder:
    """Records with ``torch.cuda.graph``."""

    device: torch.device
    _pool: Any = field(default=None, init=False, repr=False)
    _stream: Any = field(default=None, init=False, repr=False)

    def record(self, work: Work) -> Recorded:
        """See :class:`Recorder`. Other threads may go on using the device."""
        if self._pool is None:
            self._pool = torch.cuda.graph_pool_handle()
            self._stream = torch.cuda.Stream(self.device)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, pool=self._pool, stream=self._stream, capture_error_mode="thread_local"):
            results = work()
        return _Graph(graph, results)


@define(eq=False)
class StepGraphs:
    """Runs steps by their own code, then by graphs. Implements :class:`tramontane.backends.base.Replays`."""

    padding: Padding
    recorder: Recorder
    refused: str = ""
    """Why steps are no longer recorded."""
    replayed: int = 0
    """Steps that were replays."""
    last: Recorded | None = None
    """The graph that was replayed last, for measurements."""
    _met: set[Hashable] = field(factory=set, init=False, repr=False)
    _graphs: dict[Hashable, Recorded] = field(factory=dict, init=False, repr=False)

    def run(self, key: Hashable, work: Work) -> tuple[Tensor, ...]:
        """See :class:`tramontane.backends.base.Replays`."""
        graph = self._graphs.get(key)
        if graph is None:
            if self.refused or key not in self._met:
                self._met.add(key)
                return work()
            graph = self._record(key, work)
            if graph is None:
                return work()
        graph.replay()
        self.replayed += 1
        self.last = graph
        return graph.results

    @property
    def recorded(self) -> int:
        """Graphs that there are."""
        return len(self._graphs)

    def _record(self, key: Hashable, work: Work) -> Recorded | None:
        try:
            graph = self.recorder.record(work)
        except RuntimeError as error:
            self.refused = str(error).splitlines()[0] if str(error) else type(error).__name__
            _log.warning("steps are no longer recorded as CUDA graphs, they run kernel by kernel: %s", self.refused)
            return None
        if len(self._graphs) >= MOST_GRAPHS:
            self._graphs.pop(next(iter(self._graphs)))
        self._graphs[key] = graph
        return graph


def sizes(max_tokens: int) -> tuple[int, ...]:
    """Tokens that steps are padded to: powers of two, then steps that waste an eighth at most."""
    largest = min(max_tokens, LARGEST)
    found = [1, 2, 4, 8]
    while found[-1] < largest:
        found.append(found[-1] + max(4, 1 << max(0, found[-1].bit_length() - 4)))
    return tuple(dict.fromkeys([*(one for one in found if one < largest), largest]))


def step_graphs(device: torch.device, max_tokens: int, max_rows: int) -> StepGraphs:
    """Graphs for steps of an engine."""
    return StepGraphs(Padding(sizes(max_tokens), max_rows, any_draw=True), GraphRecorder(device))
