# SPDX-License-Identifier: Apache-2.0
"""Measures a trained checkpoint on what it was never trained on: stories and the prompts of `training.trials`.

``python -m training.evaluate FOLDER`` prints the numbers of the package's README; Tramontane itself tells the endings
and answers through `LLM.chat`. Never changes the checkpoint.
"""

from __future__ import annotations

import argparse
import re
from collections import Counter
from pathlib import Path

import torch
from attrs import frozen
from safetensors.torch import load_file
from tokenizers import Tokenizer

from training.data import IGNORED, held_out
from training.model import DemoModel, Shape
from training.storygrammar.engine import Tale
from training.storygrammar.generate import HELD_OUT_SEED, tale
from training.tokenizer import EOS_ID
from training.train import held_out_loss
from training.trials import Trial, story_trials, trials
from tramontane import LLM, SamplingParams
from tramontane.requests import FinishReason

LIMIT = 300
GREEDY = SamplingParams(max_tokens=LIMIT, temperature=0)


@frozen
class Ending:
    """A greedy ending of a held-out opening, and what is right about it."""

    text: str
    ended: bool
    hero_kept: bool
    """The hero is named at least three times after the opening."""
    no_strangers: bool
    """Nobody is named in the last paragraph who was not named before it."""
    no_loop: bool
    """No six words come three times."""


def opening_of(told: Tale, tokenizer: Tokenizer, length: int) -> list[int] | None:
    """The first `length` tokens of a story, if they hold the hero's name."""
    ids: list[int] = tokenizer.encode(told.text()).ids[:length]
    return ids if told.bound["h"].text in tokenizer.decode(ids) else None


def names(text: str) -> set[str]:
    """Capitalized words that do not begin a sentence or a speech."""
    return set(re.findall(r"(?<=[a-z,] )[A-Z][a-z]+", text))


def judge(hero: str, opening: str, new: list[int], tokenizer: Tokenizer) -> Ending:
    """What is right about the ending `new`."""
    text = tokenizer.decode(new)
    words = re.findall(r"[\w']+", text.lower())
    sixes = [tuple(words[start : start + 6]) for start in range(len(words) - 5)]
    before, _, last = (opening + text).rpartition("\n\n")
    return Ending(
        text=opening + text,
        ended=new[-1] == EOS_ID,
        hero_kept=text.count(hero) >= 3,
        no_strangers=all(name in before for name in names(last)),
        no_loop=all(sixes.count(six) < 3 for six in sixes),
    )


def endings(llm: LLM, tokenizer: Tokenizer, count: int, length: int = 32) -> list[Ending]:
    """Endings of the first `count` held-out openings that name their hero."""
    chosen: list[tuple[str, list[int]]] = []
    seed = HELD_OUT_SEED
    while len(chosen) < count:
        told = tale(seed)
        ids = opening_of(told, tokenizer, length)
        if ids is not None:
            chosen.append((told.bound["h"].text, ids))
        seed += 1
    answers = llm.generate([ids for _, ids in chosen], GREEDY)
    return [
        judge(hero, tokenizer.decode(ids), list(answer.token_ids), tokenizer)
        for (hero, ids), answer in zip(chosen, answers, strict=True)
    ]


def passed(llm: LLM, trial: Trial) -> tuple[bool, str]:
    """Whether the greedy reply is the expected one and ends by itself, and the reply."""
    reply = llm.chat(trial.messages, GREEDY, tools=trial.tools or None)
    calls = tuple((call.name, call.arguments) for call in reply.tool_calls)
    said = " ".join((reply.text, *(f"{name}({arguments})" for name, arguments in calls)))
    return reply.finish_reason is not FinishReason.LENGTH and trial.right(reply.text, calls), said


def print_accuracy(llm: LLM, count: int, show: int) -> None:
    """Right replies to held-out prompts, by kind; and the first `show` wrong ones."""
    asked: Counter[str] = Counter()
    right: Counter[str] = Counter()
    for trial in (*trials(count), *story_trials(count // 4)):
        good, said = passed(llm, trial)
        asked[trial.kind] += 1
        right[trial.kind] += good
        if not good and show:
            show -= 1
            print(f"wrong: {trial.messages[-1]['content']!r} -> {said!r}, not {trial.answer or trial.calls!r}")
    for kind, count in asked.items():
        print(f"{kind}: {right[kind]} of {count}, {right[kind] / count:.1%}")
    for name, chosen in (
        ("all calls", [kind for kind in asked if kind.endswith(": call")]),
        ("all answers from results", [kind for kind in asked if kind.endswith(": answer")]),
        ("all questions", [kind for kind in asked if ": " not in kind]),
    ):
        total = sum(asked[kind] for kind in chosen)
        good = sum(right[kind] for kind in chosen)
        print(f"{name}: {good} of {total}, {good / total:.1%}")


def main() -> None:
    """Load a checkpoint and print what it is worth."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--stories", type=int, default=128)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--prompts", type=int, default=60, help="held-out prompts of each kind")
    parser.add_argument("--show", type=int, default=0, help="print this many endings and wrong replies")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    tokenizer = Tokenizer.from_file(str(options.folder / "tokenizer.json"))
    model = DemoModel(Shape())
    model.load_state_dict(load_file(options.folder / "model.safetensors"))
    _, targets = held_out(tokenizer, 256)
    loss = held_out_loss(model, tokenizer, 256)
    characters = sum(len(tale(HELD_OUT_SEED + number).text()) for number in range(256))
    bits = loss * int((targets != IGNORED).sum()) / characters / 0.6931471805599453
    print(f"held-out loss {loss:.4f} nats a token, {bits:.3f} bits a character")
    with LLM(options.folder, threads=options.threads) as llm:
        found = endings(llm, tokenizer, options.stories)
        print_accuracy(llm, options.prompts, options.show)
    for name in ("ended", "hero_kept", "no_strangers", "no_loop"):
        print(f"{name}: {sum(getattr(ending, name) for ending in found)} of {len(found)}")
    for ending in found[: options.show]:
        print("\n---\n" + ending.text)


if __name__ == "__main__":
    main()
