# SPDX-License-Identifier: Apache-2.0
"""Trains the demo model's tokenizer: byte-level BPE on stories, with reserved tokens for a later chat form.

``python -m training.tokenizer OUT`` writes OUT/tokenizer.json and OUT/tokenizer_config.json.
Owns the ids of special tokens.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from pathlib import Path

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers

from training.storygrammar.generate import story

VOCAB_SIZE = 2048
BOS, EOS = "<s>", "</s>"
CHAT = ("<|system|>", "<|user|>", "<|assistant|>", "<|tool|>", "<|end|>")
SPECIAL = (BOS, EOS, *CHAT, *(f"<|spare_{number}|>" for number in range(8)))
BOS_ID, EOS_ID = 0, 1
CONTEXT = 512


def texts(count: int) -> Iterator[str]:
    """Training stories, and a few lines with the characters that stories lack but a chat will need."""
    yield from (story(seed) for seed in range(count))
    yield from ('{"name": "", "arguments": {"": ""}}', "0 1 2 3 4 5 6 7 8 9 + - * / = % ( )") * 20


def train(count: int) -> Tokenizer:
    """A tokenizer of `VOCAB_SIZE` entries from `count` stories; digits stay single, every byte has a token."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCAB_SIZE,
        special_tokens=list(SPECIAL),
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts(count), trainer)
    tokenizer.post_processor = processors.Sequence(
        [
            processors.ByteLevel(trim_offsets=False),
            processors.TemplateProcessing(
                single=f"{BOS} $A", pair=f"{BOS} $A $B", special_tokens=[(BOS, tokenizer.token_to_id(BOS))]
            ),
        ]
    )
    if (tokenizer.token_to_id(BOS), tokenizer.token_to_id(EOS)) != (BOS_ID, EOS_ID):
        raise RuntimeError("the trainer did not give the special tokens their ids")
    return tokenizer


def main() -> None:
    """Train the tokenizer and write it in Hugging Face form."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("out", type=Path)
    parser.add_argument("--stories", type=int, default=40_000)
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    tokenizer = train(options.stories)
    tokenizer.save(str(options.out / "tokenizer.json"))
    settings = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": BOS,
        "eos_token": EOS,
        "add_bos_token": True,
        "clean_up_tokenization_spaces": False,
        "model_max_length": CONTEXT,
    }
    (options.out / "tokenizer_config.json").write_text(json.dumps(settings, indent=2) + "\n")
    sample = tokenizer.encode(story(1_000_000_000))
    print(f"{tokenizer.get_vocab_size()} tokens; a held-out story: {len(sample.ids)} ids")


if __name__ == "__main__":
    main()
