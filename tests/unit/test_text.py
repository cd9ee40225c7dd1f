# SPDX-License-Identifier: Apache-2.0
"""Stop strings and output text: the same result however the text is split, and nothing ever taken back."""

from __future__ import annotations

import itertools
import time

import pytest
import tokenizers
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import decoders, models, pre_tokenizers

from tramontane.requests import SamplingParams
from tramontane.text import OutputText, StopStrings
from tramontane.tokenizer import Tokenizer


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    """One token a byte, and a few that span several characters or half ones."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    entries = [*alphabet, "ab", "abc", "ðŁ", "ĻĤ"]
    backend = tokenizers.Tokenizer(
        models.BPE({token: i for i, token in enumerate(entries)}, [("a", "b"), ("ab", "c"), ("ð", "Ł"), ("Ļ", "Ĥ")])
    )
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    backend.add_special_tokens(["<end>"])
    return Tokenizer(backend)


def oracle(text: str, stops: list[str], include: bool) -> tuple[str, str | None]:
    """Letter by letter: the first stop string that is complete, the longest of those."""
    for end in range(1, len(text) + 1):
        complete = [stop for stop in stops if text[:end].endswith(stop)]
        if complete:
            stop = max(complete, key=len)
            return text[:end] if include else text[: end - len(stop)], stop
    return text, None


letters = st.text(st.sampled_from("ab🙂\n"), max_size=40)


@settings(max_examples=300, deadline=None)
@given(
    text=letters,
    stops=st.lists(st.text(st.sampled_from("ab🙂\n"), min_size=1, max_size=5), min_size=1, max_size=4),
    cuts=st.lists(st.integers(0, 40)),
    include=st.booleans(),
)
def test_any_split_gives_the_same_text(text: str, stops: list[str], cuts: list[int], include: bool) -> None:
    expected, stop = oracle(text, stops, include)
    edges = sorted({0, len(text), *(min(cut, len(text)) for cut in cuts)})
    finder, given_out = StopStrings(stops), ""
    for start, end in itertools.pairwise(edges):
        given_out += finder.push(text[start:end], include=include)
        assert expected.startswith(given_out)
    given_out += finder.finish()
    assert (given_out, finder.found) == (expected, stop)


@settings(max_examples=200, deadline=None)
@given(
    data=st.data(),
    stops=st.lists(st.text(st.sampled_from("ab🙂\n"), min_size=1, max_size=4), max_size=3),
    include=st.booleans(),
)
def test_tokens_split_anywhere_give_the_same_text(
    tokenizer: Tokenizer, data: st.DataObject, stops: list[str], include: bool
) -> None:
    ids = data.draw(st.lists(st.sampled_from(tokenizer.encode("ab🙂\nabcðŁ <end>", parse_special=True)), max_size=40))
    output = OutputText(tokenizer, [5], SamplingParams(stop=stops, include_stop=include))
    pieces = [output.feed(token) for token in ids]
    pieces.append(output.finish())
    expected, stop = oracle(tokenizer.decode(ids), stops, include)
    assert "".join(pieces) == expected
    assert output.stop == stop
    assert output.stopped == (stop is not None)


def test_a_beginning_of_a_stop_string_is_held_back_and_given_out_when_it_was_none(tokenizer: Tokenizer) -> None:
    output = OutputText(tokenizer, [], SamplingParams(stop=["\nUser:"]))
    shown = [output.feed(token) for token in tokenizer.encode("hi\nUsed\nUser: no")]
    assert "".join(shown) == "hi\nUsed"
    assert shown[2:7] == ["", "", "", "", "\nUsed"]
    assert output.stopped
    assert output.finish() == ""


def test_what_is_held_back_is_given_out_at_the_end(tokenizer: Tokenizer) -> None:
    output = OutputText(tokenizer, [], SamplingParams(stop=["END"]))
    shown = "".join(output.feed(token) for token in tokenizer.encode("the EN🙂")[:-1])
    assert shown == "the "
    assert output.finish() == "EN\ufffd"
    assert not output.stopped


def test_min_tokens_holds_for_stop_strings(tokenizer: Tokenizer) -> None:
    output = OutputText(tokenizer, [], SamplingParams(stop=["x"], min_tokens=3))
    assert "".join(output.feed(token) for token in tokenizer.encode("xxyxx")) == "xxy"
    assert output.stopped
    output = OutputText(tokenizer, [], SamplingParams(stop=["x"], min_tokens=3))
    assert "".join(output.feed(token) for token in tokenizer.encode("xxx")) == "xx"
    assert output.stopped


def test_special_tokens_are_shown_only_if_asked_for(tokenizer: Tokenizer) -> None:
    ids = tokenizer.encode("a<end>b", parse_special=True)
    for skip, expected in ((True, "ab"), (False, "a<end>b")):
        output = OutputText(tokenizer, [], SamplingParams(skip_special_tokens=skip))
        assert "".join(output.feed(token) for token in ids) + output.finish() == expected


def test_many_long_stop_strings_stay_fast() -> None:
    stops = ["a" * 4000 + chr(0x100 + i) for i in range(256)]
    finder = StopStrings(stops)
    start = time.perf_counter()
    for _ in range(3000):
        finder.push("aa")
    finder.push("b")
    assert finder.found is None
    assert time.perf_counter() - start < 5.0
