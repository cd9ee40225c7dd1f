# SPDX-License-Identifier: Apache-2.0
"""Trains the demo model on stories and writes it in Hugging Face form.

``python -m training.train OUT`` after ``python -m training.tokenizer OUT``; the same command again goes on from
OUT/state.pt.
``--check`` trains nothing: it holds the model against transformers' LlamaForCausalLM.
Needs torch, tokenizers and safetensors.
"""

from __future__ import annotations

import argparse
import json
import math
import shutil
import time
from pathlib import Path

import torch
from attrs import frozen
from safetensors.torch import save_file
from tokenizers import Tokenizer
from torch import Tensor
from torch.nn import functional as F

from training.data import Rows, held_out
from training.model import DemoModel, Shape
from training.tokenizer import BOS_ID, EOS_ID

OPENINGS = ("Once upon a time", "", "One day", "There was a little dragon named Zubi", "The")


@frozen
class Plan:
    """How long and how fast. Rows are short first, which is cheap, and `full_length` for the last part.

    `held_out` is the number of stories for the held-out loss.
    """

    steps: int
    batch_tokens: int = 8192
    length: int = 256
    full_length: int = 512
    full_from: float = 0.85
    peak_rate: float = 3e-3
    warmup: int = 100
    weight_decay: float = 0.1
    held_out: int = 256

    def rate(self, step: int) -> float:
        """Learning rate: linear warm-up, then a cosine down to a fiftieth of the peak."""
        if step < self.warmup:
            return self.peak_rate * (step + 1) / self.warmup
        done = (step - self.warmup) / max(1, self.steps - self.warmup)
        return self.peak_rate * (0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * done)))

    def row_length(self, step: int) -> int:
        """Tokens a row at `step`."""
        return self.full_length if step >= self.full_from * self.steps else self.length


def loss_of(model: torch.nn.Module, ids_BT: Tensor, targets_BT: Tensor) -> Tensor:
    """Mean cross entropy in nats a token, computed in bfloat16 with float32 sums."""
    with torch.autocast("cpu", torch.bfloat16):
        logits_BTV = model(ids_BT)
        return F.cross_entropy(logits_BTV.flatten(0, 1).float(), targets_BT.flatten())


@torch.no_grad()
def held_out_loss(model: DemoModel, tokenizer: Tokenizer, count: int) -> float:
    """Nats a token over `count` held-out stories."""
    ids, targets = held_out(tokenizer, count)
    total = sum(
        float(loss_of(model, i, t)) * int((t != -100).sum())
        for i, t in zip(ids.split(16), targets.split(16), strict=True)
    )
    return total / int((targets != -100).sum())


def export(model: DemoModel, shape: Shape, out: Path) -> None:
    """Write config.json, generation_config.json and model.safetensors (bfloat16)."""
    weights = {name: weight.detach().to(torch.bfloat16).contiguous() for name, weight in model.named_parameters()}
    save_file(weights, out / "model.safetensors", metadata={"format": "pt"})
    (out / "config.json").write_text(json.dumps(shape.hugging_face(BOS_ID, EOS_ID), indent=2) + "\n")
    generation = {"bos_token_id": BOS_ID, "eos_token_id": EOS_ID, "do_sample": False}
    (out / "generation_config.json").write_text(json.dumps(generation, indent=2) + "\n")


def optimizers_of(model: DemoModel, plan: Plan) -> tuple[torch.optim.Optimizer, ...]:
    """Muon (Jordan et al. 2024) for the matrices inside the layers, AdamW for the embedding and the norms."""
    inner = [weight for weight in model.model.layers.parameters() if weight.dim() == 2]
    norms = [weight for weight in model.parameters() if weight.dim() < 2]
    groups = [
        {"params": [model.model.embed_tokens.weight], "weight_decay": plan.weight_decay},
        {"params": norms, "weight_decay": 0.0},
    ]
    return (
        torch.optim.Muon(inner, lr=0.0, weight_decay=plan.weight_decay, adjust_lr_fn="match_rms_adamw"),
        torch.optim.AdamW(groups, lr=0.0, betas=(0.9, 0.95), fused=True),
    )


def train(
    model: DemoModel,
    tokenizer: Tokenizer,
    plan: Plan,
    state_file: Path,
    save_every: int,
    *,
    until: int | None = None,
    compiling: bool = True,
) -> None:
    """Run the plan from where `state_file` left it, to its end or to the step `until`."""
    optimizers, rows, first = optimizers_of(model, plan), Rows(tokenizer), 0
    if state_file.exists():
        state = torch.load(state_file, weights_only=True)
        model.load_state_dict(state["model"])
        for optimizer, saved in zip(optimizers, state["optimizers"], strict=True):
            optimizer.load_state_dict(saved)
        rows.next_seed, first = state["next_seed"], state["step"]
        print(f"going on from step {first}", flush=True)
    # Compiling fuses what surrounds the matrix products: twice as fast on a CPU.
    step_loss = torch.compile(loss_of, dynamic=False) if compiling else loss_of
    last = plan.steps if until is None else until
    begin = time.monotonic()
    for step in range(first, last):
        length = plan.row_length(step)
        ids, targets = rows.batch(plan.batch_tokens // length, length)
        loss = step_loss(model, ids, targets)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for optimizer in optimizers:
            for group in optimizer.param_groups:
                group["lr"] = plan.rate(step)
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        if step % 50 == 0:
            speed = (step - first + 1) * plan.batch_tokens / (time.monotonic() - begin)
            print(f"step {step} loss {loss.item():.4f} {speed:.0f} tokens/s {rows.next_seed} stories", flush=True)
        if (step + 1) % save_every == 0 or step + 1 == last:
            state = {"model": model.state_dict(), "optimizers": [optimizer.state_dict() for optimizer in optimizers]}
            torch.save({**state, "next_seed": rows.next_seed, "step": step + 1}, state_file.with_suffix(".new"))
            state_file.with_suffix(".new").replace(state_file)
            print(f"step {step + 1} held-out loss {held_out_loss(model, tokenizer, plan.held_out):.4f}", flush=True)


def tell(model: DemoModel, tokenizer: Tokenizer) -> None:
    """Print a greedy story for each of a few openings."""
    for opening in OPENINGS:
        ids = tokenizer.encode(opening).ids
        (new,) = model.complete(torch.tensor([ids]), EOS_ID, 300)
        print(f"[{opening}]{tokenizer.decode(new)} ({len(new)} tokens, {'ended' if new[-1] == EOS_ID else 'cut'})\n")


def check(shape: Shape) -> float:
    """The largest difference to transformers' logits over the largest logit: large random weights, in float32."""
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    model = DemoModel(shape)
    with torch.no_grad():
        for weight in model.parameters():
            weight.add_(torch.randn_like(weight) * 0.2)
    theirs = LlamaForCausalLM(LlamaConfig(**shape.hugging_face(BOS_ID, EOS_ID))).float().eval()
    missing, unexpected = theirs.load_state_dict(model.state_dict(), strict=False)
    if unexpected or set(missing) - {"lm_head.weight"}:
        raise SystemExit(f"names differ from LlamaForCausalLM: missing {missing}, unexpected {unexpected}")
    theirs.tie_weights()
    ids = torch.randint(0, shape.vocab_size, (2, 100))
    with torch.no_grad():
        ours, expected = model(ids), theirs(ids).logits
    return ((ours - expected).abs().max() / expected.abs().max()).item()


def main() -> None:
    """Parse the command line and train, check or sample."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path, nargs="?")
    parser.add_argument("--steps", type=int, default=2200, help="optimizer steps of 8192 tokens")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--save-every", type=int, default=500)
    parser.add_argument("--check", action="store_true", help="compare with transformers and stop")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    shape = Shape()
    if options.check:
        print(f"largest relative difference to transformers: {check(shape):.2e}")
        return
    if options.out is None:
        parser.error("OUT is needed: the folder that tokenizer.py wrote")
    torch.manual_seed(0)
    tokenizer = Tokenizer.from_file(str(options.out / "tokenizer.json"))
    model = DemoModel(shape)
    compiling = bool(shutil.which("g++") or shutil.which("clang++"))
    train(model, tokenizer, Plan(options.steps), options.out / "state.pt", options.save_every, compiling=compiling)
    export(model, shape, options.out)
    tell(model, tokenizer)


if __name__ == "__main__":
    main()
