# SPDX-License-Identifier: Apache-2.0
"""The model tells stories: an independent implementation reads the checkpoint and every greedy story is whole."""

from __future__ import annotations

import re
from collections import Counter
from functools import cache

import pytest

from tramontane_loader_demo.plugin import FOLDER

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

OPENINGS = (
    "Once upon a time",
    "",
    "One day",
    "There was once a little fox",
    "Long ago, in a small village,",
    "Once upon a time, there was a girl named Zamira.",
    "Tom was a shy boy.",
    "Far away",
    "A small gray mouse named Pip lived",
    "In a castle with seven towers lived",
)
LIMIT = 300


@cache
def stories() -> dict[str, tuple[str, list[int]]]:
    """For each opening, all told at once: the whole story, and the ids that the model added up to its end."""
    tokenizer = transformers.AutoTokenizer.from_pretrained(FOLDER, padding_side="left")
    tokenizer.pad_token = tokenizer.eos_token
    model = transformers.AutoModelForCausalLM.from_pretrained(FOLDER, dtype=torch.float32).eval()
    assert all(tokenizer(opening)["input_ids"][0] == model.config.bos_token_id for opening in OPENINGS)
    asked = tokenizer(list(OPENINGS), padding=True, return_tensors="pt")
    given = {"input_ids": asked["input_ids"], "attention_mask": asked["attention_mask"]}
    with torch.no_grad():
        out = model.generate(**given, do_sample=False, max_new_tokens=LIMIT, pad_token_id=tokenizer.pad_token_id)
    found = {}
    for opening, row in zip(OPENINGS, out, strict=True):
        new = row[given["input_ids"].shape[1] :].tolist()
        end = new.index(tokenizer.eos_token_id) + 1 if tokenizer.eos_token_id in new else len(new)
        found[opening] = tokenizer.decode(row, skip_special_tokens=True), new[:end]
    return found


def told(opening: str) -> tuple[str, list[int]]:
    return stories()[opening]


@pytest.mark.parametrize("opening", OPENINGS)
def test_a_story_ends_by_itself(opening: str) -> None:
    text, new = told(opening)
    assert new[-1] == 1
    assert len(new) < LIMIT
    assert text.startswith(opening)
    assert re.search(r'[.!?]"?$', text)


@pytest.mark.parametrize("opening", OPENINGS)
def test_a_story_is_about_someone(opening: str) -> None:
    text, _ = told(opening)
    inside = re.findall(r"(?<![.!?] )(?<![.!?]\" )(?<!^)(?<!\")(?<!\n)\b[A-Z][a-z]+", text)
    name, count = Counter(inside).most_common(1)[0]
    assert count >= 3, f"no name recurs: {inside}"
    assert name in text[len(text) * 2 // 3 :], f"{name} is forgotten towards the end"


def test_a_name_never_seen_before_is_kept() -> None:
    text, _ = told("Once upon a time, there was a girl named Zamira.")
    assert text.count("Zamira") >= 4
    assert " she " in text.lower()
    assert " he " not in text.split("\n\n")[0]


@pytest.mark.parametrize("opening", OPENINGS)
def test_a_story_does_not_loop(opening: str) -> None:
    text, _ = told(opening)
    words = re.findall(r"[\w']+", text.lower())
    assert 60 <= len(words) <= 240
    fours = Counter(zip(words, words[1:], words[2:], words[3:], strict=False))
    assert max(fours.values()) <= 3
    sentences = [s for s in re.split(r"(?<=[.!?])\s+", text) if len(s.split()) > 4]
    assert len(sentences) - len(set(sentences)) <= 1


def test_different_openings_tell_different_stories() -> None:
    assert len({told(opening)[0] for opening in OPENINGS if opening}) == len(OPENINGS) - 1
