# SPDX-License-Identifier: Apache-2.0
"""The plain torch path against ``transformers`` eager, interleaved in one process: ``python tests/perf/torch_path.py``.

For each shape it writes random weights once (into ``build/shapes``), then alternates the two engines: prefill of 512
tokens, then greedy decoding, in bfloat16. Prints medians of tokens per second and of the ratio pair by pair, and each
engine's peak of private memory (RssAnon + Shmem) from a process of its own.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch

from tramontane.memory import PeakMemory
from tramontane.testing.shapes import SHAPES, write

PROMPT = 512
Engine = Callable[[list[int], int], tuple[float, float]]
"""``run(prompt, new tokens) -> (seconds of prefill, seconds of decoding)``."""


def ours(path: Path, backend: str) -> Engine:
    """This engine, step by step in this thread."""
    from tramontane.engine import EngineConfig, EngineCore
    from tramontane.load import LoadOptions, load_model
    from tramontane.requests import EngineRequest, SamplingParams

    config = EngineConfig(max_num_seqs=1, max_batched_tokens=PROMPT, num_blocks=64, prefix_cache=False)
    loaded = load_model(str(path), LoadOptions(engine=config, backend=backend, dtype="bfloat16", max_model_len=1024))
    core = EngineCore(loaded.runner, loaded.engine)

    def run(prompt: list[int], new: int) -> tuple[float, float]:
        sampling = SamplingParams(max_tokens=new + 1, temperature=0, ignore_eos=True)
        core.add(EngineRequest(id=f"{time.monotonic_ns()}", prompt_token_ids=tuple(prompt), sampling=sampling))
        start = time.perf_counter()
        core.step()
        middle = time.perf_counter()
        while core.has_work:
            core.step()
        return middle - start, time.perf_counter() - middle

    return run


def theirs(path: Path) -> Engine:
    """``transformers`` eager with its dynamic cache."""
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(path, dtype=torch.bfloat16).eval()

    @torch.inference_mode()
    def run(prompt: list[int], new: int) -> tuple[float, float]:
        start = time.perf_counter()
        made = model(torch.tensor([prompt]), use_cache=True, logits_to_keep=1)
        token, cache = made.logits[:, -1].argmax(-1, keepdim=True), made.past_key_values
        middle = time.perf_counter()
        for _ in range(new):
            made = model(token, past_key_values=cache, use_cache=True)
            token, cache = made.logits[:, -1].argmax(-1, keepdim=True), made.past_key_values
        return middle - start, time.perf_counter() - middle

    return run


def make(name: str, path: Path) -> Engine:
    """``transformers`` or a backend of ours."""
    return theirs(path) if name == "transformers" else ours(path, name)


def measure(path: Path, backend: str, new: int, rounds: int) -> None:
    """Alternate the two and print the table."""
    engines = {"transformers": theirs(path), backend: ours(path, backend)}
    prompt = torch.randint(0, 10_000, (PROMPT,), generator=torch.Generator().manual_seed(1)).tolist()
    seconds: dict[str, list[tuple[float, float]]] = {name: [] for name in engines}
    for run in engines.values():  # warm up
        run(prompt[:32], 2)
    for _ in range(rounds):
        for name, run in engines.items():
            seconds[name].append(run(prompt, new))
    print(f"{path.name}: prefill {PROMPT}, decode {new}, {rounds} rounds, {torch.get_num_threads()} threads")
    for what, part, count in (("prefill", 0, PROMPT), ("decode", 1, new)):
        rates = {name: statistics.median(count / pair[part] for pair in pairs) for name, pairs in seconds.items()}
        ratio = statistics.median(
            a[part] / b[part] for a, b in zip(seconds["transformers"], seconds[backend], strict=True)
        )  # fmt: skip
        print(
            f"  {what:8}", "  ".join(f"{name} {rate:8.1f} tok/s" for name, rate in rates.items()), f" ratio {ratio:.2f}"
        )


def peak(name: str, path: Path) -> None:
    """Load and run once; print the peak of private memory in MiB."""
    with PeakMemory() as memory:
        make(name, path)([7] * PROMPT, 8)
    print(f"{memory.peak / 2**20:.0f}")


def main() -> None:
    """Parse and run."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--shapes", nargs="*", default=list(SHAPES), choices=list(SHAPES))
    parser.add_argument("--backend", default="torch")
    parser.add_argument("--new", type=int, default=32)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--directory", type=Path, default=Path("build/shapes"))
    parser.add_argument("--peak", nargs=2, metavar=("ENGINE", "PATH"), help="print one engine's peak memory and stop")
    asked = parser.parse_args()
    if asked.peak:
        peak(asked.peak[0], Path(asked.peak[1]))
        return
    for shape in asked.shapes:
        path = write(shape, asked.directory)
        measure(path, asked.backend, asked.new, asked.rounds)
        for name in ("transformers", asked.backend):
            command = [sys.executable, __file__, "--peak", name, str(path)]
            found = subprocess.run(command, capture_output=True, text=True, check=True)
            print(f"  peak private memory {name}: {found.stdout.split()[-1]} MiB")


if __name__ == "__main__":
    main()
