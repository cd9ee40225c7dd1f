# SPDX-License-Identifier: Apache-2.0
"""What adapters cost: ``python tests/perf/adapters.py MODEL [--rank 16] [--adapters 4]``.

Random adapters of every linear layer are written beside the model's own names, loaded, and measured in rotation, each
case once a round: the model as it is, one adapter, and a batch in which every request uses another one. Prints medians,
and ratios to the model as it is.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
from pathlib import Path

import torch
from attrs import evolve
from safetensors.torch import save_file

from tramontane import LLM, SamplingParams
from tramontane.cli.measure import Bench, Case


def write(llm: LLM, folder: Path, rank: int, seed: int) -> Path:
    """A random adapter of all that can be adapted, by the names of a Hugging Face checkpoint."""
    targets, generator = llm._service.running.model.adapters.targets, torch.Generator().manual_seed(seed)
    tensors = {}
    for path in sorted(targets.adaptable):
        matrix = targets.matrices[path]
        for part in matrix.parts:
            (module,) = targets.maps[0].source(part.path, "weight").names()
            at = f"base_model.model.{module.removesuffix('.weight')}"
            down = torch.randn(rank, matrix.in_features, generator=generator) * matrix.in_features**-0.5
            tensors[f"{at}.lora_A.weight"] = down.bfloat16()
            tensors[f"{at}.lora_B.weight"] = (
                torch.randn(part.out_features, rank, generator=generator) * 0.02
            ).bfloat16()
    folder.mkdir()
    save_file(tensors, folder / "adapter_model.safetensors")
    (folder / "adapter_config.json").write_text(json.dumps({"peft_type": "LORA", "r": rank, "lora_alpha": rank}))
    return folder


def mixed(llm: LLM, names: list[str], new: int) -> float:
    """Tokens per second of a batch in which every request uses another adapter."""
    params = SamplingParams(max_tokens=new + 1, temperature=0, ignore_eos=True)
    streams = [llm.generate([5 + i], params, adapter=name, stream=True) for i, name in enumerate(names)]
    ends = [stream.completion().usage for stream in streams]
    return sum(usage.decode_tps for usage in ends)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model")
    parser.add_argument("--rank", type=int, default=16)
    parser.add_argument("--adapters", type=int, default=4)
    parser.add_argument("--prompt", type=int, default=512)
    parser.add_argument("--new", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--backend", default="auto")
    asked = parser.parse_args()
    many = asked.adapters
    with tempfile.TemporaryDirectory() as root, LLM(asked.model, backend=asked.backend, prefix_cache=False) as llm:
        names = [f"a{i}" for i in range(many)]
        for seed, name in enumerate(names):
            llm.adapters.load(name, str(write(llm, Path(root) / name, asked.rank, seed)))
        bench, found = Bench(llm), {}
        base = [Case(asked.prompt, 0, 0, 1), Case(0, asked.new, 0, 1), Case(0, asked.new, 0, many)]
        cases = [one for case in base for one in (case, evolve(case, adapter=names[0]))]
        for round_ in range(asked.rounds + 1):
            for case in cases:
                rate, _ = bench.once(case)
                found.setdefault(f"{case.name} x{case.concurrency}", []).append(rate)
            found.setdefault(f"tg{asked.new}+all x{many}", []).append(mixed(llm, names, asked.new))
            if not round_:
                found.clear()  # the first warms up
    rates = {name: statistics.median(samples) for name, samples in found.items()}
    for name, rate in rates.items():
        plain = name.split("+")[0] + " x" + name.split(" x")[1] if "+" in name else name
        print(f"{name:20} {rate:10.1f} tokens/s   {rate / rates[plain]:.2f}")


if __name__ == "__main__":
    main()
