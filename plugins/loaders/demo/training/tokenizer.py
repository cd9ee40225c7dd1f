# SPDX-License-Identifier: Apache-2.0
"""Trains the demo model's tokenizer: byte-level BPE on stories, then on conversations, with the tokens of chat turns.

``python -m training.tokenizer OUT`` writes OUT/tokenizer.json, OUT/tokenizer_config.json and OUT/chat_template.jinja.
Owns the ids of special tokens.
"""

from __future__ import annotations

import argparse
import json
import re
import shutil
from collections import Counter
from collections.abc import Iterable, Iterator
from itertools import pairwise
from pathlib import Path

from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, processors, trainers

from training.chat import TEMPLATE, render
from training.storygrammar.generate import story
from training.talkgrammar.generate import conversation

STORY_SIZE, VOCAB_SIZE = 2048, 2304
# One end for stories and for turns, so that the model has a single end-of-sequence token.
BOS, EOS = "<s>", "<|im_end|>"
START = "<|im_start|>"
# Marks that belong to the text of a turn: decoding keeps them, as Qwen 2.5's tokenizer does.
MARKS = ("<tool_call>", "</tool_call>", "<tool_response>", "</tool_response>", "<tools>", "</tools>")
SPECIAL = (BOS, EOS, START, *MARKS, *(f"<|spare_{number}|>" for number in range(6)))
BOS_ID, EOS_ID, START_ID = 0, 1, 2
CONTEXT = 1024


def story_texts(count: int) -> Iterator[str]:
    """Training stories, and a few lines with the characters that stories lack."""
    yield from (story(seed) for seed in range(count))
    yield from ('{"name": "", "arguments": {"": ""}}', "0 1 2 3 4 5 6 7 8 9 + - * / = % ( )") * 20


def conversation_texts(count: int) -> Iterator[str]:
    """What stands between the special tokens of training conversations."""
    special = re.compile("|".join(map(re.escape, SPECIAL)))
    for seed in range(count):
        yield from special.split(render(conversation(seed)))


def train(count: int) -> Tokenizer:
    """A tokenizer of `STORY_SIZE` entries from `count` stories; digits stay single, every byte has a token."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=STORY_SIZE,
        special_tokens=[AddedToken(token, normalized=False, special=True) for token in SPECIAL],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(story_texts(count), trainer)
    tokenizer.post_processor = processors.Sequence(
        [
            processors.ByteLevel(trim_offsets=False),
            processors.TemplateProcessing(
                single=f"{BOS} $A", pair=f"{BOS} $A $B", special_tokens=[(BOS, tokenizer.token_to_id(BOS))]
            ),
        ]
    )
    if [tokenizer.token_to_id(token) for token in SPECIAL] != list(range(len(SPECIAL))):
        raise RuntimeError("the trainer did not give the special tokens their ids")
    return tokenizer


def merged(word: tuple[str, ...], pair: tuple[str, str]) -> tuple[str, ...]:
    """`word` with the two tokens of `pair` joined wherever they meet."""
    out: list[str] = []
    for token in word:
        if out and (out[-1], token) == pair:
            out[-1] += token
        else:
            out.append(token)
    return tuple(out)


def extended(tokenizer: Tokenizer, texts: Iterable[str], size: int) -> Tokenizer:
    """The tokenizer with more merges, up to `size` entries, learned from `texts`.

    All that it had stays, with its ids: a story is the same tokens as before, unless it holds words of the new texts.
    `MARKS` are no longer special, which the trainer makes of all that it is given.
    """
    state = json.loads(tokenizer.to_str())
    for token in state["added_tokens"]:
        token["special"] = token["content"] not in MARKS
    counts: Counter[tuple[str, ...]] = Counter()
    spelled: dict[str, tuple[str, ...]] = {}
    for text in texts:
        for word, _ in tokenizer.pre_tokenizer.pre_tokenize_str(text):
            if word not in spelled:
                spelled[word] = tuple(token.value for token in tokenizer.model.tokenize(word))
            counts[spelled[word]] += 1
    vocabulary, merges = state["model"]["vocab"], state["model"]["merges"]
    while len(vocabulary) < size:
        pairs: Counter[tuple[str, str]] = Counter()
        for word, count in counts.items():
            for pair in pairwise(word):
                pairs[pair] += count
        best = max(pairs, key=lambda pair: (pairs[pair], pair))
        merges.append(list(best))
        vocabulary["".join(best)] = len(vocabulary)
        again: Counter[tuple[str, ...]] = Counter()
        for word, count in counts.items():
            again[merged(word, best) if best[0] in word else word] += count
        counts = again
    return Tokenizer.from_str(json.dumps(state))


def main() -> None:
    """Train the tokenizer and write it in Hugging Face form."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("out", type=Path)
    parser.add_argument("--stories", type=int, default=40_000)
    parser.add_argument("--conversations", type=int, default=10_000)
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    tokenizer = extended(train(options.stories), conversation_texts(options.conversations), VOCAB_SIZE)
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
    shutil.copy(TEMPLATE, options.out / TEMPLATE.name)
    sample = tokenizer.encode(story(1_000_000_000))
    print(f"{tokenizer.get_vocab_size()} tokens; a held-out story: {len(sample.ids)} ids")


if __name__ == "__main__":
    main()
