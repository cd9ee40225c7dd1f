# SPDX-License-Identifier: Apache-2.0
"""From what a caller gives as prompts to checked token ids. Whatever is wrong is a ``RequestError`` that says where."""

from __future__ import annotations

import operator
from collections.abc import Callable, Sequence
from typing import Any

from attrs import frozen

from tramontane.errors import PromptTooLongError, RequestError

Prompt = str | Sequence[int]
"""A text, or token ids (a list, tuple, range, or one-dimensional array)."""

Encode = Callable[[str], Sequence[int]]
"""Text to token ids, with the special tokens a prompt begins with."""

_BRIEF_TEXT, _BRIEF_IDS = 512, 4096
"""Characters and token ids that take about a quarter of a millisecond."""


@frozen
class PromptLimits:
    """What a prompt must fit."""

    vocab_size: int
    max_tokens: int
    """Longest prompt that leaves room for what is asked of the model."""
    max_model_len: int


def is_single(prompts: object) -> bool:
    """Whether the argument is one prompt (a text, or token ids) and not a list of them."""
    if isinstance(prompts, str):
        return True
    if hasattr(prompts, "ndim"):
        return bool(prompts.ndim == 1)
    if not isinstance(prompts, Sequence) or isinstance(prompts, bytes | bytearray):
        return False
    return len(prompts) > 0 and all(_is_id(item) for item in prompts)


def is_brief(prompts: Any) -> bool:
    """Whether prompts are encoded in the time that going to another thread and back takes."""
    listed = prompts if isinstance(prompts, list | tuple) and not is_single(prompts) else (prompts,)
    texts = [prompt for prompt in listed if isinstance(prompt, str)]
    ids = sum(len(prompt) for prompt in listed if isinstance(prompt, list | tuple))
    return len(listed) <= 16 and sum(map(len, texts)) <= _BRIEF_TEXT and ids <= _BRIEF_IDS


def as_list(prompts: Any) -> list[Any]:
    """One prompt or a list of them, as a list.

    Raises:
        RequestError: It is neither, or there is no prompt in it.
    """
    if is_single(prompts):
        return [prompts]
    if isinstance(prompts, bytes | bytearray | dict) or not hasattr(prompts, "__iter__"):
        raise RequestError(f"a prompt is a text or a list of token ids, got {type(prompts).__name__}")
    found = list(prompts)
    if not found:
        raise RequestError("no prompt: the list is empty")
    return found


def token_ids(prompt: Any, encode: Encode, limits: PromptLimits, where: str = "the prompt") -> tuple[int, ...]:
    """Check one prompt and turn it into token ids.

    Args:
        prompt: A text or token ids.
        encode: The tokenizer.
        limits: What it must fit.
        where: How to name the prompt in messages.

    Raises:
        PromptTooLongError: It has more tokens than ``limits.max_tokens``.
        RequestError: It has no tokens, is of a wrong type, or has an id outside the vocabulary.
    """
    ids = _encoded(prompt, encode, where) if isinstance(prompt, str) else _checked_ids(prompt, limits, where)
    if not ids:
        raise RequestError(f"{where} has no tokens", hint="give a text, or at least one token id")
    if len(ids) > limits.max_tokens:
        raise PromptTooLongError(
            f"{where} has {len(ids)} tokens; the longest that fits is {limits.max_tokens} "
            f"(a sequence may have {limits.max_model_len} tokens)",
            hint="shorten it, or raise max_model_len if the model and the memory allow it",
        )
    return ids


def _encoded(text: str, encode: Encode, where: str) -> tuple[int, ...]:
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise RequestError(f"{where} is not valid Unicode text: {error.reason} at character {error.start}") from None
    return tuple(encode(text))


def _checked_ids(prompt: Any, limits: PromptLimits, where: str) -> tuple[int, ...]:
    if hasattr(prompt, "tolist"):
        prompt = prompt.tolist()
    if not isinstance(prompt, Sequence) or isinstance(prompt, bytes | bytearray):
        raise RequestError(f"{where} must be a text or a list of token ids, got {type(prompt).__name__}")
    wrong = [item for item in prompt if not _is_id(item)]
    if wrong:
        raise RequestError(f"{where} must hold whole numbers, it holds {wrong[0]!r}")
    ids = tuple(operator.index(item) for item in prompt)
    outside = next((item for item in ids if not 0 <= item < limits.vocab_size), None)
    if outside is not None:
        raise RequestError(f"{where} holds token id {outside}; the vocabulary has ids 0 to {limits.vocab_size - 1}")
    return ids


def _is_id(item: object) -> bool:
    return hasattr(item, "__index__") and not isinstance(item, bool) and not getattr(item, "ndim", 0)
