# SPDX-License-Identifier: Apache-2.0
"""``python -m tramontane_backend_cuda.bench.peer``: the same models by transformers, a static cache and a CUDA graph.

One decoding step (forward, argmax, the position after it) is captured and replayed, which is as fast as transformers
goes without compiling the model.
"""

from __future__ import annotations

import argparse
import statistics
import time
from typing import Any

import torch

from tramontane_backend_cuda.bench.models import EIGHT_B, ONE_B, TINY, Shape


def model_of(shape: Shape, device: str) -> Any:
    """A model of random bfloat16 weights."""
    from transformers import AutoConfig, AutoModelForCausalLM

    config = AutoConfig.for_model("llama", **{k: v for k, v in shape.config.items() if k != "architectures"})
    with torch.device(device):
        made = AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16, attn_implementation="sdpa")
    return made.eval()


@torch.inference_mode()
def tokens_per_s(model: Any, prompt: int, answer: int, device: str) -> float:
    """Decoded tokens a second of one stream, after a prompt."""
    from transformers import StaticCache

    cache = StaticCache(config=model.config, max_cache_len=prompt + answer + 16)
    ids = torch.arange(1, prompt + 1, device=device)[None] % model.config.vocab_size
    position = torch.arange(prompt, device=device)
    logits = model(input_ids=ids, position_ids=position[None], past_key_values=cache, use_cache=True).logits
    token, place = logits[:, -1:].argmax(-1), torch.tensor([[prompt]], device=device)

    def step() -> None:
        made = model(input_ids=token, position_ids=place, past_key_values=cache, use_cache=True).logits
        token.copy_(made[:, -1:].argmax(-1))
        place.add_(1)

    run: Any = step
    if device != "cpu":
        side = torch.cuda.Stream()
        with torch.cuda.stream(side):
            for _ in range(3):
                step()
        torch.cuda.synchronize()
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            step()
        run = graph.replay
    times = []
    for _ in range(3):
        begun = time.perf_counter()
        for _ in range(answer // 4):
            run()
            int(token)  # a server reads each token
        times.append((time.perf_counter() - begun) / (answer // 4))
    return 1 / statistics.median(times)


def main() -> None:
    """Print tokens a second of each model."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--smoke", action="store_true", help="a tiny model on the host")
    smoke = parser.parse_args().smoke
    device, shapes = ("cpu", (TINY,)) if smoke else ("cuda", (ONE_B, EIGHT_B))
    for shape in shapes:
        model = model_of(shape, device)
        rate = tokens_per_s(model, 5 if smoke else 128, 16 if smoke else 512, device)
        print(f"transformers {shape.name} bf16, static cache and graph: {rate:.0f} tokens/s")
        del model


if __name__ == "__main__":
    main()
