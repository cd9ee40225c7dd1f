# SPDX-License-Identifier: Apache-2.0
"""Memory and time of quantizing while loading: the growth of ``RssAnon + Shmem`` while weights come in, with the
machine's own backend. Each type has a process of its own, since what one leaves behind would serve the next."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time

from attrs import evolve

from tramontane.bench.quantization.quality import bits
from tramontane.bench.quantization.records import Row
from tramontane.build.fill import fill_weights
from tramontane.build.plan import ModelPlan
from tramontane.load import LoadOptions
from tramontane.load.find import choose_backend
from tramontane.load.places import main_place
from tramontane.load.planned import planned
from tramontane.memory import PeakMemory, private_memory
from tramontane.plugins import installed

MAPPED = {"MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_TRIM_THRESHOLD_": "65536"}
"""What malloc keeps of freed pieces differs from run to run by megabytes; mapped pieces go back at once."""


def measure(model: str, kind: str) -> Row:
    """Load once, in a new process."""
    command = [sys.executable, "-m", __name__, model, kind]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, env={**os.environ, **MAPPED})
    found: Row = json.loads(done.stdout.splitlines()[-1])
    return found


def load(model: str, kind: str) -> Row:
    """Load here, and say what that took: bytes and seconds."""
    options, plugins = LoadOptions(quant=kind), installed()
    with planned(model, options, plugins) as one:
        backend = choose_backend(main_place(options), plugins)
        first = min(one.plan.weights, key=lambda weight: weight.nbytes)
        fill_weights(
            evolve(one.plan, weights=(first,)), one.made.blueprint, backend
        )  # libraries and pools, not counted
        begin = time.perf_counter()
        with PeakMemory() as peak:
            fill_weights(one.plan, one.made.blueprint, backend)
            kept = private_memory() - peak.start
        seconds = time.perf_counter() - begin
        return {
            "planned": one.plan.nbytes,
            "bits": bits(one.plan),
            "peak": peak.growth,
            "kept": kept,
            "layer": largest_layer(one.plan),
            "seconds": seconds,
        }


def largest_layer(plan: ModelPlan) -> int:
    """Bytes of the largest layer as the checkpoint stores it; what is outside of layers is one by itself each."""
    layers: dict[str, int] = {}
    for weight in plan.weights:
        for part in weight.parts:
            number = next((word for word in part.path.split(".") if word.isdigit()), part.path)
            layers[number] = layers.get(number, 0) + part.source.scheme.nbytes(part.shape)
    return max(layers.values())


if __name__ == "__main__":
    print(json.dumps(load(*sys.argv[1:])))
