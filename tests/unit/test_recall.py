# SPDX-License-Identifier: Apache-2.0
"""A conversation's tokens from turn to turn: what the prefix cache holds is found again."""

from __future__ import annotations

from typing import Any

import pytest

from tramontane.chat import recall
from tramontane.chat.recall import Recall
from tramontane.testing.answering import answering_llm

BYTES = {1: b"a", 2: b"b", 3: b"ab", 4: b"c", 5: b"abc", 8: b"<e>", 9: b"<e>"}
"""8 spells what the control token 9 looks like."""


def made() -> Recall:
    return Recall(BYTES.__getitem__, frozenset({9}))


def test_an_answer_takes_the_place_of_its_spelling() -> None:
    memory = made()
    memory.remember([9, 4], [1, 2, 9])
    assert memory.apply([9, 4, 3, 9, 4]) == [9, 4, 1, 2, 9, 4]
    assert memory.apply([9, 4, 1, 2, 9, 4]) == [9, 4, 1, 2, 9, 4]
    memory.remember([9, 4, 1, 2, 9, 4], [3, 4, 9])
    assert memory.apply([9, 4, 3, 9, 4, 5, 9, 2]) == [9, 4, 1, 2, 9, 4, 3, 4, 9, 2]


@pytest.mark.parametrize(
    "ids",
    [
        [9, 4],  # nothing after the prompt
        [4, 9, 3, 9],  # another prompt
        [9, 4, 5, 9],  # another text
        [9, 4, 3],  # unfinished
        [9, 4, 3, 8],  # a text that looks like the control token
        [9, 4, 1, 9, 2, 9],
    ],
)
def test_other_texts_stay(ids: list[int]) -> None:
    memory = made()
    memory.remember([9, 4], [1, 2, 9])
    assert memory.apply(ids) == ids


def test_an_answer_that_ends_inside_a_token_stays_away() -> None:
    memory = made()
    memory.remember([9], [1, 2])
    assert memory.apply([9, 5]) == [9, 5]
    assert memory.apply([9, 3, 4]) == [9, 1, 2, 4]


def test_text_is_never_taken_for_a_control_token() -> None:
    memory = made()
    memory.remember([4], [1, 9])
    assert memory.apply([4, 1, 8, 2]) == [4, 1, 8, 2]
    memory.remember([2], [1, 8])
    assert memory.apply([2, 1, 9]) == [2, 1, 9]


def test_callers_with_other_salts_do_not_meet() -> None:
    memory = made()
    memory.remember([4], [1, 2], b"x")
    assert memory.apply([4, 3]) == [4, 3]
    assert memory.apply([4, 3], b"x") == [4, 1, 2]


def test_it_forgets(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recall, "MOST_TOKENS", 8)
    memory = made()
    for prompt in range(1, 5):
        memory.remember([prompt], [1, 2])
    assert memory.apply([1, 3]) == [1, 3]
    assert memory.apply([4, 3]) == [4, 1, 2]
    assert memory._tokens == 6


TEMPLATE = (
    "{{ bos_token }}{% for m in messages %}<{{ m.role }}>{{ m.content }}</s>{% endfor %}"
    "{% if add_generation_prompt %}<assistant>{% endif %}"
)


def test_twenty_turns_compute_only_what_is_new() -> None:
    """Each turn's prompt is cached up to the last block of the turn before."""
    block = 16
    model: Any = answering_llm(
        lambda prompt: f"Answer number {prompt.count('<user>')}, of some length.",
        template=TEMPLATE,
        max_model_len=4096,
        num_blocks=512,
    )
    messages: list[dict[str, str]] = []
    known = 0
    for turn in range(20):
        messages.append({"role": "user", "content": f"Question {turn}?"})
        out = model.chat(messages)
        usage = out.usage
        assert usage.prompt_tokens - usage.cached_tokens <= usage.prompt_tokens - known + block, turn
        assert usage.cached_tokens >= known - block, turn
        known = usage.prompt_tokens + usage.completion_tokens - 1
        messages.append({"role": "assistant", "content": out.text})
    assert known > 800
