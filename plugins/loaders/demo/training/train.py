# SPDX-License-Identifier: Apache-2.0
"""Trains the demo model on stories and conversations and writes it in Hugging Face form.

``python -m training.train OUT`` after ``python -m training.tokenizer OUT``; the same command again goes on from
OUT/state.pt. ``--weights FOLDER`` begins with the weights of an earlier checkpoint, of another vocabulary maybe.
``--check`` trains nothing: it holds the model against transformers' LlamaForCausalLM.
Needs torch, tokenizers and safetensors.
"""

from __future__ import annotations

import argparse
import json
import shutil
import time
from pathlib import Path

import torch
from attrs import frozen
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer
from torch import Tensor
from torch.nn import functional as F

from training.data import IGNORED, Rows, held_out
from training.model import DemoModel, Shape
from training.muon import Muon
from training.tokenizer import BOS_ID, EOS_ID
from training.workers import ALONE, Workers

OPENINGS = ("Once upon a time", "", "One day", "There was a little dragon named Zubi", "The")


@frozen
class Plan:
    """How long and how fast: steps of `rows` rows of `length` tokens.

    `learned` bounds the share of tokens that are learned in a step; `held_out` is the number of stories for the
    held-out loss.
    """

    steps: int
    rows: int = 7
    length: int = 320
    learned: float = 0.65
    peak_rate: float = 2e-3
    warmup: int = 30
    cooling: float = 0.6
    weight_decay: float = 0.1
    held_out: int = 64

    def rate(self, step: int) -> float:
        """Learning rate: linear warm-up, the peak, and a line down to zero for the last `cooling` of the steps."""
        left = (self.steps - step) / max(1.0, self.cooling * self.steps)
        return self.peak_rate * min(1.0, (step + 1) / self.warmup, left)


def kept(targets_BT: Tensor, share: float) -> Tensor:
    """Positions [K] of the learned targets in the flattened rows, cut or filled up to a fixed `share` of all."""
    count = int(targets_BT.numel() * share)
    learned = (targets_BT.flatten() != IGNORED).nonzero().squeeze(1)
    others = (targets_BT.flatten() == IGNORED).nonzero().squeeze(1)
    return torch.cat((learned, others))[:count]


def loss_of(model: torch.nn.Module, ids_BT: Tensor, targets_BT: Tensor, position_BT: Tensor, kept_K: Tensor) -> Tensor:
    """Mean cross entropy in nats a learned token."""
    return F.cross_entropy(model(ids_BT, position_BT, kept_K), targets_BT.flatten()[kept_K], ignore_index=IGNORED)


@torch.no_grad()
def held_out_loss(model: DemoModel, tokenizer: Tokenizer, count: int) -> float:
    """Nats a token over `count` held-out stories."""
    ids, targets = held_out(tokenizer, count)
    total = sum(
        float(F.cross_entropy(model(i).flatten(0, 1), t.flatten(), ignore_index=IGNORED)) * int((t != IGNORED).sum())
        for i, t in zip(ids.split(16), targets.split(16), strict=True)
    )
    return total / int((targets != IGNORED).sum())


def export(model: DemoModel, shape: Shape, out: Path) -> None:
    """Write config.json, generation_config.json and model.safetensors (bfloat16)."""
    weights = {name: weight.detach().to(torch.bfloat16).contiguous() for name, weight in model.named_parameters()}
    save_file(weights, out / "model.safetensors", metadata={"format": "pt"})
    (out / "config.json").write_text(json.dumps(shape.hugging_face(BOS_ID, EOS_ID), indent=2) + "\n")
    generation = {"bos_token_id": BOS_ID, "eos_token_id": EOS_ID, "do_sample": False}
    (out / "generation_config.json").write_text(json.dumps(generation, indent=2) + "\n")


def optimizers_of(model: DemoModel, plan: Plan, workers: Workers) -> tuple[torch.optim.Optimizer, ...]:
    """Muon (Jordan et al. 2024) for the matrices inside the layers, AdamW for the embedding and the norms."""
    inner = [weight for weight in model.model.layers.parameters() if weight.dim() == 2]
    norms = [weight for weight in model.parameters() if weight.dim() < 2]
    groups = [
        {"params": [model.model.embed_tokens.weight], "weight_decay": plan.weight_decay},
        {"params": norms, "weight_decay": 0.0},
    ]
    return (
        Muon(inner, plan.weight_decay, workers),
        torch.optim.AdamW(groups, lr=0.0, betas=(0.9, 0.95), fused=True),
    )


def train(
    model: DemoModel,
    tokenizer: Tokenizer,
    plan: Plan,
    state_file: Path,
    save_every: int,
    *,
    workers: Workers = ALONE,
    until: int | None = None,
    compiling: bool = True,
) -> None:
    """Run the plan from where `state_file` left it, to its end or to the step `until`."""
    optimizers, first = optimizers_of(model, plan, workers), 0
    rows = Rows(tokenizer, workers.rank, stride=workers.count)
    if state_file.exists():
        state = torch.load(state_file, weights_only=True)
        model.load_state_dict(state["model"])
        for optimizer, saved in zip(optimizers, state["optimizers"], strict=True):
            optimizer.load_state_dict(saved)
        rows.resume(state["rows"], workers.rank)
        first = state["step"]
        print(f"going on from step {first}", flush=True)
    # Compiling fuses what surrounds the matrix products: twice as fast on a CPU.
    step_loss = torch.compile(loss_of, dynamic=False) if compiling else loss_of
    last = plan.steps if until is None else until
    begin, smooth = time.monotonic(), 3.0
    for step in range(first, last):
        ids, targets, positions = rows.batch(plan.rows, plan.length)
        loss = step_loss(model, ids, targets, positions, kept(targets, plan.learned))
        loss.backward()
        workers.average_gradients(model)
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for optimizer in optimizers:
            for group in optimizer.param_groups:
                group["lr"] = plan.rate(step)
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        smooth += 0.1 * (loss.item() - smooth)
        if step % 5 == 0 and workers.rank == 0:
            speed = (step - first + 1) * ids.numel() * workers.count / (time.monotonic() - begin)
            print(f"step {step} loss {smooth:.4f} {speed:.0f} tokens/s {rows.next_seed} documents", flush=True)
        if (step + 1) % save_every == 0 or step + 1 == last:
            drawn = workers.gather((rows.next_seed, rows.waiting))
            if workers.rank == 0:
                save(model, optimizers, drawn, step + 1, state_file)
                print(f"step {step + 1} held-out loss {held_out_loss(model, tokenizer, plan.held_out):.4f}", flush=True)


def save(
    model: DemoModel,
    optimizers: tuple[torch.optim.Optimizer, ...],
    rows: list[tuple[int, list[int]]],
    step: int,
    state_file: Path,
) -> None:
    """Write everything that going on needs, or nothing: an interrupted write leaves the old file."""
    state = {"model": model.state_dict(), "optimizers": [optimizer.state_dict() for optimizer in optimizers]}
    torch.save({**state, "rows": rows, "step": step}, state_file.with_suffix(".new"))
    state_file.with_suffix(".new").replace(state_file)


def graft(model: DemoModel, tokenizer: Tokenizer, folder: Path) -> None:
    """Begin with the weights in `folder`: a token that its tokenizer lacks starts as the mean of its parts there.

    Special tokens keep their ids' vectors where both know them, or the first has the other's place as end of text.
    """
    weights = load_file(folder / "model.safetensors")
    theirs = Tokenizer.from_file(str(folder / "tokenizer.json"))
    old = weights["model.embed_tokens.weight"].float()
    known, special = theirs.get_vocab(), set(tokenizer.get_added_tokens_decoder())
    new = torch.randn(tokenizer.get_vocab_size(), old.shape[1]) * old.std()
    for text, token in tokenizer.get_vocab().items():
        if token in (BOS_ID, EOS_ID):
            new[token] = old[token]
        elif text in known:
            new[token] = old[known[text]]
        elif token not in special:
            parts = theirs.encode(tokenizer.decode([token]), add_special_tokens=False).ids
            new[token] = old[parts].mean(0)
    model.load_state_dict({**weights, "model.embed_tokens.weight": new})


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
    parser.add_argument("--steps", type=int, default=1000, help="optimizer steps of 2240 tokens a process")
    parser.add_argument("--weights", type=Path, help="a checkpoint to begin with")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--save-every", type=int, default=20)
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
    if options.weights:
        graft(model, tokenizer, options.weights)
    workers = Workers.joined()
    compiling = bool(shutil.which("g++") or shutil.which("clang++"))
    state_file = options.out / "state.pt"
    train(model, tokenizer, Plan(options.steps), state_file, options.save_every, workers=workers, compiling=compiling)
    if workers.rank == 0:
        export(model, shape, options.out)
        tell(model, tokenizer)


if __name__ == "__main__":
    main()
