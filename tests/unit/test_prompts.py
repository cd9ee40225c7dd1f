# SPDX-License-Identifier: Apache-2.0
"""What may be given as a prompt, and what is refused with which words."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from tramontane.api.prompts import PromptLimits, as_list, is_single, token_ids
from tramontane.errors import PromptTooLongError, RequestError

LIMITS = PromptLimits(vocab_size=300, max_tokens=8, max_model_len=9)


def _encode(text: str) -> list[int]:
    return list(text.encode())


@pytest.mark.parametrize(
    ("prompts", "count"),
    [
        ("text", 1),
        ("", 1),
        ([1, 2, 3], 1),
        ((1, 2), 1),
        (range(3), 1),
        (np.array([1, 2]), 1),
        (torch.tensor([1, 2]), 1),
        ([np.int64(1), 2], 1),
        (["a"], None),
        ([[1, 2]], None),
        (["a", [1, 2], np.array([3])], None),
        (torch.tensor([[1, 2], [3, 4]]), None),
    ],
)
def test_one_prompt_or_several(prompts: Any, count: int | None) -> None:
    assert is_single(prompts) is (count == 1)
    assert len(as_list(prompts)) == (1 if count == 1 else len(prompts))


@pytest.mark.parametrize(
    ("prompts", "words"),
    [([], "list is empty"), (None, "NoneType"), (3, "int"), (b"bytes", "bytes"), ({"a": 1}, "dict"), (1.5, "float")],
)
def test_what_is_no_prompt_at_all(prompts: Any, words: str) -> None:
    with pytest.raises(RequestError, match=words):
        as_list(prompts)


@pytest.mark.parametrize(
    ("prompt", "ids"),
    [("ab", (97, 98)), ([1, 2], (1, 2)), (np.array([5]), (5,)), (torch.tensor([7, 8]), (7, 8)), (range(2), (0, 1))],
)
def test_token_ids(prompt: Any, ids: tuple[int, ...]) -> None:
    found = token_ids(prompt, _encode, LIMITS)
    assert found == ids
    assert all(type(item) is int for item in found)


@pytest.mark.parametrize(
    ("prompt", "words"),
    [
        ("", "has no tokens"),
        ((), "has no tokens"),
        ("\ud800", "not valid Unicode"),
        ([1, 300], "token id 300; the vocabulary has ids 0 to 299"),
        ([1, -1], "token id -1"),
        ([1, 2**70], "token id"),
        ([True], "holds True"),
        ([1, "a"], "holds 'a'"),
        ([1.0], "holds 1.0"),
        (np.array([1.5]), "holds 1.5"),
        (np.array([[1]]), r"holds \[1\]"),
        ([None], "holds None"),
        (None, "NoneType"),
        (b"ab", "bytes"),
    ],
)
def test_bad_prompts_say_what_is_wrong(prompt: Any, words: str) -> None:
    with pytest.raises(RequestError, match=words) as caught:
        token_ids(prompt, _encode, LIMITS, where="prompt 3")
    assert caught.value.message.startswith("prompt 3 ")


def test_too_long_gives_both_numbers() -> None:
    with pytest.raises(
        PromptTooLongError, match=r"the prompt has 9 tokens; the longest that fits is 8 \(.* 9 tokens\)"
    ):
        token_ids("x" * 9, _encode, LIMITS)
    assert len(token_ids("x" * 8, _encode, LIMITS)) == 8
