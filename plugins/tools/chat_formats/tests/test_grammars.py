# SPDX-License-Identifier: Apache-2.0
"""What each format demands of the model: the grammar takes what the format writes, and nothing that breaks a schema."""

from __future__ import annotations

from functools import cache
from typing import Any

import pytest
import tokenizers
from chat_format_outputs import WRITERS
from tokenizers import decoders, models, pre_tokenizers

from tramontane.chat.parsing import ChatFormat, Demand, Offered, budget_constraint
from tramontane.errors import RequestError
from tramontane.grammar import Constraint
from tramontane.grammar.trial import Limits, compile_matcher
from tramontane.grammar.vocabulary import Vocabulary
from tramontane.tokenizer import Tokenizer
from tramontane_tools_chat_formats.plugin import tramontane_chat_formats

FORMATS: dict[str, ChatFormat] = {spec.name: spec.load("format") for spec in tramontane_chat_formats()}
FORCED = list(WRITERS)
WEATHER = {
    "type": "object",
    "properties": {
        "city": {"type": "string"},
        "days": {"type": "integer"},
        "unit": {"type": "string", "enum": ["C", "F"]},
    },
    "required": ["city"],
    "additionalProperties": False,
}


def tools(strict: bool | None = None) -> Offered:
    said = {} if strict is None else {"strict": strict}
    functions: list[dict[str, Any]] = [
        {"name": "get_weather", "parameters": WEATHER, **said},
        {"name": "now", "parameters": {"type": "object", "properties": {}, "additionalProperties": False}, **said},
    ]
    return Offered.of([{"type": "function", "function": function} for function in functions])


@cache
def tokenizer(special: tuple[str, ...]) -> Tokenizer:
    """Bytes, an end, and marks that are tokens."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    backend = tokenizers.Tokenizer(models.BPE({token: i for i, token in enumerate(alphabet)}, []))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    backend.decoder = decoders.ByteLevel()
    backend.add_special_tokens(["</s>", *special])
    return Tokenizer(backend, names={"eos_token": "</s>"}, eos_ids=(256,))


def accepts(constraint: Constraint, text: str, vocabulary: Tokenizer) -> bool:
    matcher = compile_matcher(
        constraint, Vocabulary.of(vocabulary, vocabulary.vocab_size).build(), vocabulary.eos_ids, Limits()
    )
    ids = vocabulary.encode(text, add_special=False, parse_special=True)
    return all(matcher.consume_token(token) for token in ids) and matcher.is_accepting()


def special_of(vocabulary: Tokenizer) -> Any:
    def special(text: str) -> int | None:
        found = vocabulary.token_id(text)
        return found if found in vocabulary.special_ids else None

    return special


def vocabulary_for(form: ChatFormat, marks: bool) -> Tokenizer:
    texts = [text for text in form.visible if text[0] in "<[" and text[-1] in ">]" and len(text) > 2] if marks else []
    return tokenizer(tuple(texts))


def written(name: str, calls: Any) -> str:
    """As the answer is seen by a grammar: without the token that ends it."""
    return WRITERS[name](calls).removesuffix("<|call|>")


GOOD = [("get_weather", {"city": 'Rome "x" é\n', "days": 3})]
SMALL = [("get_weather", {"city": "Rome"})]
BAD = [("get_weather", {"city": "Rome", "days": "three"})]
MISSING = [("get_weather", {"days": 3})]
OTHER = [("frobnicate", {})]


@pytest.mark.parametrize("marks", [False, True], ids=["text", "tokens"])
@pytest.mark.parametrize("name", FORCED)
def test_required_calls(name: str, marks: bool) -> None:
    form = FORMATS[name]
    vocabulary = vocabulary_for(form, marks)
    for parallel in (False, True):
        demand = Demand(offered=tools(), required=True, parallel=parallel)
        constraint = form.constraint(demand, special_of(vocabulary))
        assert constraint is not None
        for calls in (GOOD if name not in PYTHON else [("get_weather", {"city": "Rome é", "days": 3})], SMALL):
            assert accepts(constraint, spelled(name, calls), vocabulary), calls
        for calls in (BAD, MISSING, OTHER):
            assert not accepts(constraint, spelled(name, calls), vocabulary), calls
        assert not accepts(constraint, "Just text.", vocabulary)
        assert not accepts(constraint, "", vocabulary)
        if name != "harmony":
            assert accepts(constraint, spelled(name, [*SMALL, ("now", {})]), vocabulary) == parallel


PYTHON = {"llama4", "gemma", "lfm2"}


def spelled(name: str, calls: Any) -> str:
    """Python's strings as the grammar writes them, which are JSON's."""
    text = WRITERS["hermes"](calls) if name == "smollm3" else written(name, calls)
    return text.replace("'", '"') if name in PYTHON else text


@pytest.mark.parametrize("name", FORCED)
def test_strict_tools_are_held_to_their_schema_once_a_call_begins(name: str) -> None:
    form = FORMATS[name]
    vocabulary = vocabulary_for(form, True)
    constraint = form.constraint(Demand(offered=tools(strict=True)), special_of(vocabulary))
    assert constraint is not None
    free = "It is 3 < 4."
    assert accepts(constraint, free, vocabulary)
    before = "" if constraint.after == () else "I look.\n"
    text = spelled(name, SMALL)
    if name == "harmony":
        text = (
            '<|start|>assistant to=functions.get_weather<|channel|>commentary <|constrain|>json<|message|>{"city": "R"}'
        )
        assert accepts(constraint, text, vocabulary)
        return
    assert accepts(constraint, before + text, vocabulary)
    for calls in (BAD, OTHER) if name != "glm4" else (BAD,):  # there what names no tool is text
        assert not accepts(constraint, before + spelled(name, calls), vocabulary)


@pytest.mark.parametrize("name", FORCED)
def test_without_demands_there_is_no_constraint(name: str) -> None:
    assert FORMATS[name].constraint(Demand(offered=tools()), lambda text: None) is None
    assert FORMATS[name].constraint(Demand(offered=Offered(), required=True), lambda text: None) is None


def test_reasoning_comes_before_required_calls() -> None:
    form, vocabulary = FORMATS["hermes"], tokenizer(())
    for thinking, text in ((True, "Hm.\n</think>\n\n"), (False, "<think>\nHm.\n</think>\n\n"), (False, "")):
        demand = Demand(offered=tools(), required=True, thinking=thinking)
        constraint = form.constraint(demand, special_of(vocabulary))
        assert constraint is not None
        assert accepts(constraint, text + WRITERS["hermes"](SMALL), vocabulary)


def test_a_format_without_calls_cannot_require_them() -> None:
    with pytest.raises(RequestError, match="cannot require calls"):
        FORMATS["thinking"].constraint(Demand(offered=tools(), required=True), lambda text: None)


def test_tools_that_are_not_strict_may_be_called_with_any_object() -> None:
    form, vocabulary = FORMATS["hermes"], tokenizer(())
    demand = Demand(offered=tools(strict=False), required=True)
    constraint = form.constraint(demand, special_of(vocabulary))
    assert constraint is not None
    assert accepts(constraint, WRITERS["hermes"](BAD), vocabulary)
    assert not accepts(constraint, WRITERS["hermes"](OTHER), vocabulary)


def test_a_thinking_budget_forces_the_end() -> None:
    form, vocabulary = FORMATS["hermes"], tokenizer(("<think>", "</think>", "<tool_call>"))
    special = special_of(vocabulary)
    free = [vocabulary.token_id("</think>"), vocabulary.token_id("<tool_call>")]

    def budget(answer: Constraint | None = None, **demand: Any) -> Constraint:
        return budget_constraint(form, Demand(offered=Offered(), budget=5, **demand), special, free, answer)

    for thinking, before in ((True, ""), (False, "<think>")):
        constraint = budget(thinking=thinking)
        for text in ("abc</think>Yes.", "</think>", "abcde</think>A <tool_call>{}"):
            assert accepts(constraint, before + text, vocabulary), text
        assert not accepts(constraint, before + "abcdef</think>Yes.", vocabulary)
        assert not accepts(constraint, before + "abc</think><think>again", vocabulary)
    assert accepts(budget(), "No reasoning at all.", vocabulary)
    schema = budget(Constraint.json_schema({"type": "integer"}), thinking=True)
    assert accepts(schema, "abc</think>12", vocabulary)
    assert not accepts(schema, "abc</think>x", vocabulary)
    demand = Demand(offered=tools(), required=True, thinking=True, budget=3)
    required = form.constraint(demand, special)
    assert required is not None
    assert accepts(required, "abc</think>\n" + WRITERS["hermes"](SMALL), vocabulary)
    assert not accepts(required, "abcd</think>\n" + WRITERS["hermes"](SMALL), vocabulary)
    with pytest.raises(RequestError, match="is one token"):
        budget_constraint(form, Demand(offered=Offered(), budget=5), lambda text: None, [], None)
    with pytest.raises(RequestError, match="where a call is required only"):
        form.constraint(Demand(offered=tools(strict=True), budget=5), special)
    with pytest.raises(RequestError, match="no reasoning"):
        budget_constraint(FORMATS["llama3"], Demand(offered=Offered(), budget=5), special, [], None)
    with pytest.raises(RequestError, match="no reasoning that a budget"):
        FORMATS["harmony"].constraint(Demand(offered=tools(), required=True, budget=5), special)
