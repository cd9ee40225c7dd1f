# SPDX-License-Identifier: Apache-2.0
"""``python -m tramontane_backend_cuda.bench``: measure everything and print one table.

``--smoke`` runs the same code over tiny shapes on the host, by Triton's interpreter: it shows that the script works and
says nothing about speed.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

SECTIONS = ("kernel", "step", "prefill", "streams", "load")


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the table; the exit status is 1 if some numbers are wrong, 2 if a goal was missed."""
    parser = argparse.ArgumentParser(prog="python -m tramontane_backend_cuda.bench", description=__doc__)
    parser.add_argument("--smoke", action="store_true", help="tiny shapes on the host, by Triton's interpreter")
    parser.add_argument("--only", default=",".join(SECTIONS), help=f"sections: {','.join(SECTIONS)}")
    parser.add_argument("--match", default="", help="regular expression that the names of kernels and models match")
    parser.add_argument("--backend", default="cuda", help="backend to measure: cuda, or torch to compare with")
    parser.add_argument("--device", default="cuda:0")
    parser.add_argument("--json", type=Path, help="write the lines there too")
    options = parser.parse_args(arguments)
    sections = options.only.split(",")
    unknown = sorted(set(sections) - set(SECTIONS))
    if unknown:
        parser.error(f"no section {', '.join(unknown)}; there are {', '.join(SECTIONS)}")
    if options.smoke:
        os.environ["TRITON_INTERPRET"] = "1"  # before anything imports Triton
    lines = []
    for line in _measure(options, sections):
        lines.append(line)
        print(".", end="", file=sys.stderr, flush=True)
    print(file=sys.stderr)
    from tramontane_backend_cuda.bench.limits import table

    print(table(lines))
    if options.json is not None:
        import attrs

        options.json.write_text(json.dumps([attrs.asdict(line) for line in lines], indent=1), encoding="utf-8")
    if any(line.wrong for line in lines):
        return 1
    return 2 if not options.smoke and any(line.reached is False for line in lines) else 0


def _measure(options: Any, sections: Sequence[str]) -> Iterator[Any]:
    import torch

    from tramontane.load import LoadOptions, choose_backend
    from tramontane.plugins import installed
    from tramontane_backend_cuda.bench import kernels, loading, steps
    from tramontane_backend_cuda.bench.cases import Bench
    from tramontane_backend_cuda.bench.clock import Clock
    from tramontane_backend_cuda.bench.limits import Line, this_card

    torch.manual_seed(0)
    plugins = installed()
    device = "cpu" if options.smoke else options.device
    backend = choose_backend(LoadOptions(device=device, backend=options.backend), plugins)
    clock, card = Clock(backend.device), this_card(backend.device)
    begun = time.perf_counter()
    print(
        f"{card.name}: {card.bytes_per_s / 1e12:.2f} TB/s, {card.flops_per_s / 1e12:.0f} TFLOP/s; "
        f"torch {torch.__version__}, backend {backend.name} on {backend.device}"
    )
    with torch.inference_mode(), backend.guard():
        if "kernel" in sections:
            yield from kernels.measure(Bench(backend, plugins), clock, card, options.match)
        if {"step", "prefill", "streams"} & set(sections):
            yield from steps.measure(backend, plugins, clock, card, sections, options.match)
        if "load" in sections:
            yield from loading.measure(backend, plugins, clock)
    yield Line(section="all", what="the whole run", value=time.perf_counter() - begun, unit="s")


if __name__ == "__main__":
    sys.exit(main())
