# SPDX-License-Identifier: Apache-2.0
"""Constrained outputs of the demo model: they match, however they are batched, scheduled and sampled."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

import pytest
import torch

from tramontane import LLM, SamplingParams
from tramontane.errors import GrammarError
from tramontane.grammar import Constraint
from tramontane.requests import FinishReason

PERSON = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "maxLength": 12},
        "age": {"type": "integer", "minimum": 0, "maximum": 99},
        "friends": {"type": "array", "items": {"enum": ["Ann", "Bob"]}, "maxItems": 3},
    },
    "required": ["name", "age", "friends"],
    "additionalProperties": False,
    "x-guidance": {"whitespace_flexible": False},
}
PROMPTS = ["Once upon a time", "The little dog", "One day, a girl named Lily"]
MIXED = [
    Constraint.json_schema(PERSON),
    Constraint.regex(r"[A-F]{3}-[0-9]{2,9}!"),
    Constraint.choice(["a red ball", "a red boat", "nothing"]),
]


EXACT = {"backend": "torch", "dtype": "float32"}
"""What makes a row's logits the same in every batch, but for rounding."""


@pytest.fixture(scope="module")
def llm() -> Iterator[LLM]:
    with LLM("demo", **EXACT) as model:
        yield model


@pytest.fixture(scope="module")
def overlapped() -> Iterator[LLM]:
    with LLM("demo", overlap=True, **EXACT) as model:
        yield model


def drawn(**changes: Any) -> SamplingParams:
    return SamplingParams(**{"max_tokens": 120, "temperature": 1.0, "seed": 5, **changes})


def each(**changes: Any) -> list[SamplingParams]:
    return [drawn(constraint=constraint, **changes) for constraint in MIXED]


def answers(model: LLM, params: list[SamplingParams]) -> list[list[tuple[Any, ...]]]:
    return [[(c.text, c.token_ids, c.finish_reason) for c in one.choices] for one in model.generate(PROMPTS, params)]


def test_each_kind_is_met_and_ends_by_itself(llm: LLM) -> None:
    person, code, choice = llm.generate(PROMPTS, each())
    assert set(json.loads(person.text)) == {"name", "age", "friends"}
    assert re.fullmatch(r"[A-F]{3}-[0-9]{2,9}!", code.text)
    assert choice.text in ("a red ball", "a red boat", "nothing")
    assert {one.finish_reason for one in (person, code, choice)} == {FinishReason.STOP}
    lark = llm.generate("x", drawn(constraint=Constraint.lark('start: "(" start ")" | /[xyz]/'), max_tokens=60))
    assert re.fullmatch(r"\(*[xyz]\)*", lark.text)
    both = Constraint.llguidance(
        {"grammars": [{"lark_grammar": 'start: "v=" @n'}, {"name": "n", "json_schema": {"enum": [7]}}]}
    )
    assert llm.generate("x", drawn(constraint=both)).text == "v=7"
    some = llm.generate("x", drawn(constraint=Constraint.json_object(), max_tokens=20))
    assert some.text.startswith("{")


def test_overlap_batches_and_singles_agree(llm: LLM, overlapped: LLM) -> None:
    together = answers(llm, each(n=2))
    assert answers(overlapped, each(n=2)) == together
    alone = [llm.generate(prompt, params) for prompt, params in zip(PROMPTS, each(n=2), strict=True)]
    assert [[(c.text, c.token_ids, c.finish_reason) for c in one.choices] for one in alone] == together


def test_penalties_and_biases_see_forced_tokens(llm: LLM, overlapped: LLM) -> None:
    changes = {"repetition_penalty": 1.3, "frequency_penalty": 0.5, "min_tokens": 4, "top_k": 40, "dry_multiplier": 0.8}
    one = answers(llm, each(**changes))
    assert answers(overlapped, each(**changes)) == one
    # Told one a step, forced tokens enter the history as drawn ones do.
    assert answers(llm, each(logprobs=0, **changes)) == one


def test_log_probabilities_are_the_models_own(llm: LLM) -> None:
    one = llm.generate(PROMPTS[0], drawn(constraint=MIXED[0], logprobs=2)).choices[0]
    assert one.logprobs is not None
    assert [entry.token_id for entry in one.logprobs] == list(one.token_ids)
    prompt = [3, 50, 700]
    one = llm.generate(prompt, drawn(constraint=MIXED[0], logprobs=2)).choices[0]
    assert one.logprobs is not None
    rows = llm.logits([*prompt, *one.token_ids])[len(prompt) - 1 : -1]
    for row, entry in zip(rows, one.logprobs, strict=True):
        exact = torch.log_softmax(torch.from_numpy(row), dim=0)[entry.token_id].item()
        assert entry.logprob == pytest.approx(exact, abs=1e-3)


def test_a_cut_is_reported_as_length(llm: LLM) -> None:
    cut = llm.generate("x", drawn(constraint=MIXED[0], max_tokens=5))
    assert (cut.finish_reason, cut.usage.completion_tokens) == (FinishReason.LENGTH, 5)
    endless = llm.generate("x", drawn(constraint=Constraint.regex("[a-z]+"), max_tokens=9, ignore_eos=True))
    assert (endless.finish_reason, endless.usage.completion_tokens) == (FinishReason.LENGTH, 9)
    assert re.fullmatch("[a-z]+", endless.text)
    over = llm.generate("x", drawn(constraint=Constraint.regex("[a-z]{3}"), ignore_eos=True, min_tokens=50))
    assert (over.finish_reason, len(over.text)) == (FinishReason.STOP, 3)


def test_stop_strings_and_streams(llm: LLM) -> None:
    text = Constraint.lark('start: "{" /[a-z]{3}/ "}; done and over"')
    stopped = llm.generate("x", drawn(constraint=text, stop=["; done"]))
    assert re.fullmatch(r"\{[a-z]{3}\}", stopped.text)
    assert stopped.finish_reason is FinishReason.STOP
    with llm.generate("x", drawn(constraint=text), stream=True) as stream:
        assert re.fullmatch(r"\{[a-z]{3}\}; done and over", "".join(delta.text for delta in stream))


def test_preemption_and_prefix_hits_change_nothing(llm: LLM) -> None:
    long = [drawn(constraint=Constraint.regex("([a-z]{1,9} ){12}end"), n=4, max_tokens=200)] * 3
    wanted = answers(llm, long)
    with LLM("demo", **EXACT, num_blocks=14, block_tokens=8, max_model_len=96) as small:
        assert answers(small, long) == wanted
        assert small.stats().preemptions > 0
    whole = "".join(PROMPTS) * 6
    first, second = (llm.generate(whole, long[0]) for _ in range(2))
    assert second.usage.cached_tokens > 0
    assert [c.token_ids for c in second.choices] == [c.token_ids for c in first.choices]


def test_a_trigger_begins_the_constraint(llm: LLM) -> None:
    inner = Constraint.regex("[0-9]{4}")
    text = llm.generate(PROMPTS[0], drawn(constraint=inner.triggered(" the"), max_tokens=80)).text
    assert re.fullmatch(r"(?:(?! the).)* the[0-9]{4}", text, re.DOTALL)
    again = llm.generate(PROMPTS[0], drawn(constraint=inner.triggered(" a", again=True), max_tokens=80, n=8)).choices
    assert any(choice.text.count(" a") > 1 for choice in again)
    for choice in again:
        assert all(re.match("[0-9]{4}", rest) for rest in choice.text.split(" a")[1:-1])
    free = llm.generate(PROMPTS[0], drawn(constraint=inner.triggered("never spelled"), max_tokens=30, temperature=0))
    assert free.token_ids == llm.generate(PROMPTS[0], drawn(max_tokens=30, temperature=0)).token_ids


def test_a_slow_grammar_holds_up_nobody(llm: LLM) -> None:
    slow = Constraint.lark("start: A\nA: /.*a.{18}/ & /.*b.{17}/ & ~/.*c.{16}/")  # minutes, if nobody stops it
    with llm.generate("x", drawn(constraint=slow), stream=True) as waiting:
        assert llm.generate("x", drawn(max_tokens=9)).usage.completion_tokens == 9
        waiting.cancel()
        assert [delta.finish_reason for delta in waiting] == [FinishReason.CANCELED]
    assert llm.stats().running == 0


@pytest.mark.parametrize(
    ("constraint", "named"),
    [
        (Constraint.json_schema({"not": {"type": "string"}, "unevaluatedProperties": False}), "unevaluatedProperties"),
        (Constraint.json_schema({"type": "strin"}), "strin"),
        (Constraint.json_schema('{"type": '), "schema is not valid JSON"),
        (Constraint.json_schema({"$ref": "http://127.0.0.1:9/schema.json"}), "127.0.0.1"),
        (Constraint.regex("(("), "unclosed"),
        (Constraint.lark("start: nothing"), "nothing"),
        (Constraint.lark("start: start"), "gramma"),
        (Constraint.regex("a").triggered(10**6), "vocabulary"),
    ],
)
def test_an_unusable_constraint_is_a_typed_error(llm: LLM, constraint: Constraint, named: str) -> None:
    with pytest.raises(GrammarError, match=re.escape(named)):
        llm.generate("x", drawn(constraint=constraint))
    assert llm.generate("x", drawn(max_tokens=2)).usage.completion_tokens == 2
