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
def models() -> tuple[object, object]:
    return (
        transformers.AutoTokenizer.from_pretrained(FOLDER),
        transformers.AutoModelForCausalLM.from_pretrained(FOLDER, dtype=torch.float32).eval(),
    )


@cache
def told(opening: str) -> tuple[str, list[int]]:
    """The whole story and the ids that the model added to the opening."""
    tokenizer, model = models()
    ids = tokenizer(opening, return_tensors="pt")["input_ids"]
    assert ids[0, 0] == model.config.bos_token_id
    with torch.no_grad():
        out = model.generate(ids, attention_mask=torch.ones_like(ids), do_sample=False, max_new_tokens=LIMIT)
    return tokenizer.decode(out[0], skip_special_tokens=True), out[0, ids.shape[1] :].tolist()


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
    assert " she " in text
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
    stories = {told(opening)[0] for opening in OPENINGS if opening}
    assert len(stories) == len(OPENINGS) - 1
