# SPDX-License-Identifier: Apache-2.0
"""A worker that is not the first one: loads its part of a model, then follows the steps that it is told of.

``python -m tramontane.distributed.worker`` reads its orders from the standard input, one JSON object a line, and ends
with it. It schedules nothing, samples nothing and answers nobody.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Iterable, Mapping
from typing import Any

import torch
import torch.distributed as dist

from tramontane.distributed.share import Share
from tramontane.distributed.team import read_options, share_of
from tramontane.runner import ModelRunner


def main() -> int:
    """Serve one model until the standard input ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the first worker is interrupted and closes the pipe
    orders = sys.stdin
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # what libraries print belongs to the messages
    setup = json.loads(orders.readline() or "null")
    if setup is None:
        return 0

    def ready() -> None:
        answers.write("{}\n")
        answers.flush()

    try:
        runner = _load(setup, ready)
    except Exception as error:
        answers.write(json.dumps({"error": f"{type(error).__name__}: {error}"}) + "\n")
        answers.flush()
        raise
    follow(runner, orders)
    return 0


def _load(setup: Mapping[str, Any], ready: Any) -> ModelRunner:
    from tramontane.load.model import load_share
    from tramontane.plugins import installed

    options = read_options(setup["options"])
    share = share_of(setup["rank"], options)
    plugins = installed().extended(files=setup["plugins"]) if setup["plugins"] else installed()

    def connect(one: Share, device: torch.device) -> None:
        ready()
        one.group.connect(dist.FileStore(setup["store"], one.shard.world), device)

    return load_share(setup["ref"], options, plugins, share, connect).runner


@torch.inference_mode()
def follow(runner: ModelRunner, orders: Iterable[str]) -> None:
    """Run the steps of the orders, beside the first worker."""
    hidden_LD = None
    for line in orders:
        order = json.loads(line)
        if "step" in order:
            ctx = runner.buffers.receive(runner.share.group, *order["step"])
            hidden_LD = runner.forward(ctx, order["loads"], order["saves"])
        elif hidden_LD is not None:
            rows = order["head"]
            runner.model.head(hidden_LD if rows is None else hidden_LD[rows])


if __name__ == "__main__":
    sys.exit(main())
