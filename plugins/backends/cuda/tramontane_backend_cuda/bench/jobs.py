# SPDX-License-Identifier: Apache-2.0
"""What a worker of the measurement does: its jobs one after the other, each result noted as it comes."""

from __future__ import annotations

import gc
import sys
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import attrs
from attrs import frozen

from tramontane_backend_cuda.bench.isolation import SPOILED, Notes, alive
from tramontane_backend_cuda.bench.limits import Line


@frozen
class Job:
    """Something to measure.

    Attributes:
        section: Of the table.
        name: Unlike that of any other job.
        unit: Of the line that stands for it if it fails.
        run: Gives its results.
    """

    section: str
    name: str
    unit: str
    run: Callable[[], Iterator[Line]]


def work(jobs: Iterator[Job], notes: Notes, device: str) -> int:
    """Do all that are not skipped; the exit status says whether another worker has to go on."""
    skipped = notes.skipped()
    for job in jobs:
        if job.name in skipped:
            continue
        notes.write("begin", job.name)
        failed = False
        try:
            for line in job.run():
                notes.write("line", attrs.asdict(line))
        except Exception as error:
            traceback.print_exc()
            failed, said = True, f"{type(error).__name__}: {error}"[:160]
            line = Line(section=job.section, what=job.name, value=0, unit=job.unit, check=said)
            notes.write("line", attrs.asdict(line))
        notes.write("end", job.name)
        if failed and not alive(device):
            return SPOILED
        free(device)
    notes.write("finish", None)
    return 0


def free(device: str) -> None:
    """Give back what the last job held."""
    gc.collect()
    torch = sys.modules.get("torch")
    if torch is not None and device.startswith("cuda"):
        torch.cuda.empty_cache()


def all_jobs(options: Any, sections: Sequence[str], say: Callable[[str], None]) -> Iterator[Job]:
    """The jobs of some sections, with everything they need on the device."""
    import torch

    from tramontane.load import LoadOptions, choose_backend
    from tramontane.plugins import installed
    from tramontane_backend_cuda.bench import kernels, loading, steps
    from tramontane_backend_cuda.bench.cases import Bench
    from tramontane_backend_cuda.bench.clock import Clock
    from tramontane_backend_cuda.bench.limits import this_card

    begun = time.perf_counter()
    torch.manual_seed(0)
    plugins = installed()
    device = "cpu" if options.smoke else options.device
    backend = choose_backend(LoadOptions(device=device, backend=options.backend), plugins)
    clock, card = Clock(backend.device), this_card(backend.device)
    say(
        f"{card.name}: {card.bytes_per_s / 1e12:.2f} TB/s, {card.flops_per_s / 1e12:.0f} TFLOP/s; torch "
        f"{torch.__version__}, backend {backend.name} on {backend.device}, ready in {time.perf_counter() - begun:.1f} s"
    )
    with torch.inference_mode(), backend.guard():
        if "kernel" in sections:
            yield from kernels.jobs(Bench(backend, plugins), clock, card, options.match)
        if "sweep" in sections:
            yield from kernels.sweeps(Bench(backend, plugins), clock, card, options.match)
        if {"step", "prefill", "streams"} & set(sections):
            yield from steps.jobs(backend, plugins, clock, card, sections, options.match)
        if "load" in sections:
            yield Job("load", "loading", "s", lambda: loading.measure(backend, plugins, clock))
