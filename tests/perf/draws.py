# SPDX-License-Identifier: Apache-2.0
"""What drawing a token costs: ``python tests/perf/draws.py [--vocab 151936] [--rows 1] [--threads 2]``.

Torch's draws and the cpu backend's by turns over the same random logits, flat and peaked; medians in microseconds of a
step of so many rows, and the ratio.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable

import torch
from torch import Tensor

from tramontane.sampler.drawing import draw_rows as draw_by_torch
from tramontane.sampler.select import Knobs
from tramontane.sampler.state import Path
from tramontane_backend_cpu.drawing import draw_rows
from tramontane_backend_cpu.library import pool

SETTINGS: dict[str, tuple[Path, float, int, float]] = {
    "greedy": (Path.GREEDY, 1.0, 0, 1.0), "temperature 0.8": (Path.FULL, 0.8, 0, 1.0),
    "top-k 20, top-p 0.95": (Path.TOP_K, 0.6, 20, 0.95), "top-k 1000": (Path.TOP_K, 0.8, 1000, 1.0),
    "top-p 0.9": (Path.TOP_P, 0.8, 0, 0.9), "top-p 0.99, temperature 1.5": (Path.TOP_P, 1.5, 0, 0.99),
}  # fmt: skip
"""Path, temperature, top-k and top-p."""
SPREADS = {"flat": 1.0, "peaked": 3.0}
"""Standard deviations of the logits."""


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--vocab", type=int, default=151_936)
    parser.add_argument("--rows", type=int, default=1)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--rounds", type=int, default=15)
    asked = parser.parse_args()
    torch.set_num_threads(asked.threads)
    for spread, scale in SPREADS.items():
        logits_RV = torch.randn(asked.rows, asked.vocab, generator=torch.Generator().manual_seed(0)) * scale
        for name, setting in SETTINGS.items():
            theirs, ours = measure(logits_RV, *setting, asked)
            print(f"{spread:7s} {name:28s} torch {theirs:8.0f} us  native {ours:6.0f} us  {theirs / ours:5.1f}x")


def measure(
    logits_RV: Tensor, path: Path, temperature: float, top_k: int, top_p: float, asked: argparse.Namespace
) -> tuple[float, float]:
    """Medians in microseconds, torch's first."""
    rows, vocab = logits_RV.shape
    knobs = Knobs(
        temperature_R=torch.full((rows,), temperature), top_k_R=torch.full((rows,), top_k or vocab),
        top_p_R=torch.full((rows,), top_p).double(), min_p_R=torch.zeros(rows).double(), most_k=top_k or vocab,
        any_min_p=False,
    )  # fmt: skip
    uniform_R = torch.rand(rows, dtype=torch.float64)
    wanted = (None, None) if path is Path.GREEDY else (knobs, uniform_R)
    threads = pool(asked.threads)
    pairs = [
        (
            spent(lambda: draw_by_torch(path, logits_RV, *wanted)),
            spent(lambda: draw_rows(threads, path, logits_RV, *wanted)),
        )
        for _ in range(asked.rounds)
    ]
    theirs, ours = zip(*pairs[1:], strict=True)
    return 1e6 * statistics.median(theirs), 1e6 * statistics.median(ours)


def spent(work: Callable[[], object]) -> float:
    """Seconds."""
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


if __name__ == "__main__":
    main()
