# SPDX-License-Identifier: Apache-2.0
"""Stories and conversations as rows of token ids. Owns packing and what is learned of a conversation.

Of a story every token is learned, of a conversation only what the assistant says: the rest is given at run time.
The only state are seeds, so training can resume.
"""

from __future__ import annotations

import random

import torch
from attrs import define, field, frozen
from tokenizers import Tokenizer
from torch import Tensor

from training.chat import render
from training.storygrammar.generate import HELD_OUT_SEED, story
from training.talkgrammar.generate import conversation
from training.tokenizer import BOS_ID, CONTEXT, EOS_ID, START_ID

STORY_EVERY = 32
IGNORED = -100


def encode(tokenizer: Tokenizer, seed: int) -> list[int]:
    """The story of `seed` between its <s> and its end."""
    return [*tokenizer.encode(story(seed)).ids, EOS_ID]


def learned(tokenizer: Tokenizer, ids: list[int]) -> list[bool]:
    """Which ids of a conversation the assistant says, ends of turns included."""
    role = tokenizer.token_to_id("assistant")
    speaking, out = False, []
    for at, token in enumerate(ids):
        out.append(speaking)
        if token == EOS_ID:
            speaking = False
        elif at >= 2 and ids[at - 2] == START_ID and ids[at - 1] == role:
            speaking = True  # after "<|im_start|>assistant\n"
    return out


@frozen
class Document:
    """Ids, the same with `IGNORED` where nothing is learned, and where each stands."""

    ids: list[int]
    targets: list[int]
    positions: list[int]


def document(tokenizer: Tokenizer, seed: int) -> Document:
    """The document of `seed`: a story, or a conversation."""
    if seed % STORY_EVERY == 0:
        ids = encode(tokenizer, seed)
        return Document(ids, [IGNORED, *ids[1:]], list(range(len(ids))))
    ids = tokenizer.encode(render(conversation(seed)), add_special_tokens=False).ids
    said = learned(tokenizer, ids)
    targets = [token if keep else IGNORED for token, keep in zip(ids, said, strict=True)]
    return Document(ids, targets, spread(ids, random.Random(f"spread {seed}")))


def spread(ids: list[int], rng: random.Random) -> list[int]:
    """Positions of a conversation, every fourth time with a gap before a turn, as if more had been said.

    So the model learns to look back further than the rows of training are long, at no cost.
    """
    positions = list(range(len(ids)))
    turns = [at for at, token in enumerate(ids) if token == START_ID and at > 1]
    if turns and rng.random() < 0.25:
        first, gap = rng.choice(turns), rng.randrange(CONTEXT - len(ids))
        positions[first:] = [position + gap for position in positions[first:]]
    return positions


@define
class Rows:
    """Endless packed rows: each is filled with the longest waiting documents that fit, and no document is cut."""

    tokenizer: Tokenizer
    next_seed: int = 0
    waiting: list[int] = field(factory=list)
    """Seeds of documents drawn and not yet used."""
    window: int = 128
    stride: int = 1
    """From one seed to the next; more than one if several processes share the seeds."""
    _made: dict[int, Document] = field(factory=dict, init=False)

    def _length(self, seed: int) -> int:
        if seed not in self._made:
            self._made[seed] = document(self.tokenizer, seed)
        return len(self._made[seed].ids)

    def resume(self, saved: list[tuple[int, list[int]]], rank: int) -> None:
        """Go on where as many processes as now, or another number of them, have stopped."""
        if len(saved) == self.stride:
            self.next_seed, self.waiting = saved[rank]
        else:
            begin = max(seed for seed, _ in saved)
            self.next_seed = begin - begin % self.stride + self.stride + rank

    def _refill(self, longest: int) -> None:
        """Draw documents up to the window; those longer than a row are left out."""
        while len(self.waiting) < self.window:
            if self._length(self.next_seed) <= longest:
                self.waiting.append(self.next_seed)
            else:
                del self._made[self.next_seed]
            self.next_seed += self.stride

    def row(self, length: int) -> Document:
        """One document after the other, `length` ids in all; the rest of the row is begun documents of nothing."""
        ids: list[int] = []
        targets: list[int] = []
        positions: list[int] = []
        while True:
            self._refill(length)
            room = length - len(ids)
            fitting = [seed for seed in self.waiting if self._length(seed) <= room]
            if not fitting:
                break
            # The oldest first at the beginning of a row, so that none waits for ever.
            chosen = fitting[0] if not ids else max(fitting, key=self._length)
            self.waiting.remove(chosen)
            made = self._made.pop(chosen)
            ids += made.ids
            targets += [*made.targets[1:], IGNORED]
            positions += made.positions
        return Document(ids + [BOS_ID] * room, targets + [IGNORED] * room, positions + [0] * room)

    def batch(self, rows: int, length: int) -> tuple[Tensor, Tensor, Tensor]:
        """Inputs, targets and positions [rows, length]; a target is the id after its input, or `IGNORED`."""
        made = [self.row(length) for _ in range(rows)]
        return (
            torch.tensor([row.ids for row in made]),
            torch.tensor([row.targets for row in made]),
            torch.tensor([row.positions for row in made]),
        )


def padded(documents: list[tuple[list[int], list[int]]]) -> tuple[Tensor, Tensor]:
    """One document a row, as inputs and targets."""
    length = max(len(ids) for ids, _ in documents)
    ids = torch.tensor([ids + [EOS_ID] * (length - len(ids)) for ids, _ in documents])
    targets = torch.tensor([said + [IGNORED] * (length - len(said)) for _, said in documents])
    return ids[:, :-1], targets[:, 1:]


def held_out(tokenizer: Tokenizer, count: int) -> tuple[Tensor, Tensor]:
    """`count` stories never trained on, one a row, as inputs and targets."""
    stories = [encode(tokenizer, HELD_OUT_SEED + number) for number in range(count)]
    return padded([(ids, ids) for ids in stories])
