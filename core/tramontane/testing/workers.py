# SPDX-License-Identifier: Apache-2.0
"""Two workers of one model in one process, each in a thread of its own: what tensor parallelism does, without the
seconds that a second process takes to start."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from queue import Queue
from typing import Any

import torch
import torch.distributed as dist
from attrs import define, evolve, field

from tramontane.distributed import Share
from tramontane.distributed.team import Team, share_of
from tramontane.distributed.worker import follow
from tramontane.engine import EngineConfig, EngineCore
from tramontane.load import LoadOptions
from tramontane.load.model import load_share
from tramontane.plugins import installed
from tramontane.testing.harness import SMALL, Harness

END = "end"


@define(eq=False)
class Threads(Team):
    """A team whose workers are threads; orders go through queues and are written as JSON all the same."""

    queues: list[Queue[str]] = field(factory=list)
    told: list[Mapping[str, Any]] = field(factory=list)
    """Every order so far."""

    def tell(self, message: Mapping[str, Any]) -> None:
        """Queue the order."""
        super().tell(message)  # raises where a worker is lost
        self.told.append(message)
        for queue in self.queues:
            queue.put(json.dumps(message))

    def stop(self) -> None:
        """End the orders."""
        for queue in self.queues:
            queue.put(END)


def _orders(queue: Queue[str]) -> Iterator[str]:
    while (line := queue.get()) != END:
        yield line


@contextmanager
def shared(path: Path | str, world: int = 2, **changes: Any) -> Iterator[Harness]:
    """A harness over a model that ``world`` workers share."""
    names = {a.name for a in EngineConfig.__attrs_attrs__}
    engine = evolve(SMALL, **{k: v for k, v in changes.items() if k in names})
    options = LoadOptions(engine=engine, tensor_parallel=world, **{k: v for k, v in changes.items() if k not in names})
    store, plugins = dist.HashStore(), installed()
    team = Threads(share_of(0, options), "", [], queues=[Queue() for _ in range(world - 1)])
    loaded: dict[int, Any] = {}

    def connect(share: Share, device: torch.device) -> None:
        share.group.connect(store, device)

    def load(rank: int, share: Share) -> None:
        try:
            loaded[rank] = load_share(str(path), options, plugins, share, connect)
        except BaseException as error:  # handed to the thread that asked
            loaded[rank] = error

    def work(rank: int) -> None:
        load(rank, share_of(rank, options))
        if not isinstance(loaded[rank], BaseException):
            follow(loaded[rank].runner, _orders(team.queues[rank - 1]))

    threads = [threading.Thread(target=work, args=(rank,), daemon=True) for rank in range(1, world)]
    for thread in threads:
        thread.start()
    load(0, team.share)
    try:
        _raise_any(loaded)
        first = loaded[0]
        first.team = first.runner.team = team
        yield Harness(first, EngineCore(first.runner, first.engine))
    finally:
        team.stop()
        for thread in threads:
            thread.join(30)
    if any(thread.is_alive() for thread in threads):
        raise RuntimeError("a worker did not end with its orders")


def _raise_any(loaded: Mapping[int, Any]) -> None:
    for outcome in loaded.values():
        if isinstance(outcome, BaseException):
            raise outcome
