# SPDX-License-Identifier: Apache-2.0
"""Starting the other workers of a model, and telling them what to do.

The first worker is the process that loads the model; the others are processes of their own that load the same files
and wait. They are told of steps by lines of JSON through a pipe, which has no timeout and ends when the first worker
does; the tensors of a step go through the group. Nothing listens on a network for commands.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import torch
import torch.distributed as dist
from attrs import asdict, define, field

from tramontane.distributed.group import Group
from tramontane.distributed.share import Share
from tramontane.errors import EngineError
from tramontane.tensors import Shard

if TYPE_CHECKING:
    from tramontane.load.options import LoadOptions

LEAVING = 10.0
"""Seconds that a worker has to end by itself."""


def share_of(rank: int, options: LoadOptions) -> Share:
    """What a worker holds."""
    world = options.tensor_parallel
    return Share(Shard(rank, world), Group(rank, world), by_expert=options.expert_parallel)


def write_options(options: LoadOptions) -> dict[str, Any]:
    """Options as JSON takes them."""
    return asdict(options)


def read_options(written: Mapping[str, Any]) -> LoadOptions:
    """The reverse of :func:`write_options`."""
    from tramontane.engine import EngineConfig
    from tramontane.load.options import LoadOptions

    return LoadOptions(**{**written, "engine": EngineConfig(**written["engine"])})


@define(eq=False)
class Team:
    """The other workers, as the first one sees them. For one thread."""

    share: Share
    store: str
    """A file in a directory that only this user can read: where the group's members find each other."""
    workers: Sequence[subprocess.Popen[str]]
    _folder: Any = field(default=None, repr=False)
    _lost: str = field(default="", init=False)

    @classmethod
    def start(cls, ref: str, options: LoadOptions, plugin_files: Sequence[str] = ()) -> Team:
        """Start processes that begin to load the model at once."""
        folder = tempfile.TemporaryDirectory(prefix="tramontane-")
        store = str(Path(folder.name) / "group")
        workers = []
        for rank in range(1, options.tensor_parallel):
            process = subprocess.Popen(
                [sys.executable, "-m", "tramontane.distributed.worker"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
                bufsize=1,
            )
            setup = {"ref": ref, "rank": rank, "store": store, "options": write_options(options)}
            _tell(process.stdin, {**setup, "plugins": list(plugin_files)})
            workers.append(process)
        return cls(share_of(0, options), store, workers, folder)

    def connect(self, device: torch.device) -> None:
        """Wait until every worker has planned its part, then join the group with them.

        Raises:
            EngineError: A worker failed; its own message is given.
        """
        for rank, worker in enumerate(self.workers, 1):
            line = worker.stdout.readline() if worker.stdout else ""
            said = json.loads(line) if line else {"error": f"it ended with status {worker.poll()}"}
            if "error" in said:
                raise EngineError(f"worker {rank} cannot load its part: {said['error']}")
        self.share.group.connect(dist.FileStore(self.store, self.share.shard.world), device)

    def tell(self, message: Mapping[str, Any]) -> None:
        """Send every worker one message.

        Raises:
            EngineError: A worker is gone, now or since an earlier step.
        """
        if self._lost:
            raise EngineError(self._lost, hint="load the model again")
        for rank, worker in enumerate(self.workers, 1):
            try:
                _tell(worker.stdin, message)
            except (OSError, ValueError):
                self.lose(f"worker {rank} has ended with status {worker.poll()}")
                raise EngineError(self._lost, hint="its own message is above; load the model again") from None

    def lose(self, reason: str) -> None:
        """The workers are no longer at the same step, so none can follow."""
        self._lost = self._lost or reason

    def stop(self) -> None:
        """End the workers; they end by themselves when their pipe is closed."""
        for worker in self.workers:
            if worker.stdin:
                with suppress(OSError):  # it may be gone, with an order unread
                    worker.stdin.close()
        for worker in self.workers:
            try:
                worker.wait(LEAVING)
            except subprocess.TimeoutExpired:
                worker.kill()
                worker.wait()
            if worker.stdout:
                worker.stdout.close()
        if self._folder is not None:
            self._folder.cleanup()


def _tell(pipe: IO[str] | None, message: Mapping[str, Any]) -> None:
    if pipe is not None:
        pipe.write(json.dumps(message) + "\n")
        pipe.flush()
