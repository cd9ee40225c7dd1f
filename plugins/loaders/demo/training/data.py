# SPDX-License-Identifier: Apache-2.0
"""Stories as rows of token ids. Owns packing; the only state is the seed of the next story, so training can resume."""

from __future__ import annotations

import torch
from attrs import define
from tokenizers import Tokenizer
from torch import Tensor

from training.storygrammar.generate import HELD_OUT_SEED, story
from training.tokenizer import EOS_ID


def encode(tokenizer: Tokenizer, seed: int) -> list[int]:
    """The story of `seed` between its <s> and its </s>."""
    return [*tokenizer.encode(story(seed)).ids, EOS_ID]


@define
class Rows:
    """Endless packed rows. Every row begins with a story; one that is cut off at the end begins the next row."""

    tokenizer: Tokenizer
    next_seed: int = 0

    def row(self, length: int) -> list[int]:
        """`length` ids, stories one after the other."""
        ids: list[int] = []
        while len(ids) < length:
            last = encode(self.tokenizer, self.next_seed)
            cut = len(ids) + len(last) > length
            if not (cut and ids):
                self.next_seed += 1
            ids += last
        return ids[:length]

    def batch(self, rows: int, length: int) -> tuple[Tensor, Tensor]:
        """Inputs and targets [rows, length]; a target is the id after its input."""
        ids = torch.tensor([self.row(length + 1) for _ in range(rows)])
        return ids[:, :-1], ids[:, 1:]


def held_out(tokenizer: Tokenizer, count: int) -> tuple[Tensor, Tensor]:
    """`count` stories never trained on, one a row, as inputs and targets; targets after the end are -100."""
    stories = [encode(tokenizer, HELD_OUT_SEED + number) for number in range(count)]
    length = max(len(ids) for ids in stories)
    padded = torch.tensor([ids + [EOS_ID] * (length - len(ids)) for ids in stories])
    lengths = torch.tensor([len(ids) for ids in stories])
    targets = padded[:, 1:].clone()
    targets[torch.arange(1, length) >= lengths[:, None]] = -100
    return padded[:, :-1], targets
