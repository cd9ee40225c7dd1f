# SPDX-License-Identifier: Apache-2.0
"""Constraints as records, schemas made strict, and the documented list of refused keywords against reality."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import attrs
import llguidance
import pytest
from llguidance.gbnf_to_lark import GbnfToLarkError, any_to_lark

from tramontane.errors import GrammarError, RequestError
from tramontane.grammar import Constraint, Kind
from tramontane.grammar.schema import strict_schema
from tramontane.grammar.trial import Limits, compile_matcher
from tramontane.requests import SamplingParams

VECTORS = Path(__file__).resolve().parents[3] / "shared" / "data" / "vectors"
DOCUMENT = Path(__file__).resolve().parents[2] / "docs" / "structured-output.md"
SCHEMA = {"type": "string"}
PROBES: dict[str, dict[str, Any]] = {
    "not": {"not": SCHEMA},
    "oneOf": {"oneOf": [{"type": "string", "pattern": "a"}, {"type": "string", "pattern": "b"}]},
    "if": {"if": SCHEMA},
    "then": {"if": SCHEMA, "then": SCHEMA},
    "else": {"if": SCHEMA, "else": SCHEMA},
    "contains": {"contains": SCHEMA},
    "minContains": {"contains": SCHEMA, "minContains": 2},
    "maxContains": {"contains": SCHEMA, "maxContains": 2},
    "uniqueItems": {"uniqueItems": True},
    "propertyNames": {"propertyNames": SCHEMA},
    "dependentRequired": {"dependentRequired": {"a": ["b"]}},
    "dependentSchemas": {"dependentSchemas": {"a": {"required": ["b"]}}},
    "dependencies": {"dependencies": {"a": ["b"]}},
    "propertyDependencies": {"propertyDependencies": {"a": {"b": True}}},
    "unevaluatedProperties": {"unevaluatedProperties": False},
    "unevaluatedItems": {"unevaluatedItems": False},
    "$dynamicRef": {"$dynamicRef": "#a"},
    "$dynamicAnchor": {"$dynamicAnchor": "a"},
    "$recursiveRef": {"$recursiveRef": "#"},
    "contentEncoding": {"contentEncoding": "base64"},
    "contentMediaType": {"contentMediaType": "application/json"},
    "contentSchema": {"contentSchema": {}},
    "disallow": {"disallow": "string"},
    "divisibleBy": {"divisibleBy": 2},
    "extends": {"extends": {}},
}
FORMATS = ["date", "time", "date-time", "duration", "email", "hostname", "ipv4", "ipv6", "uuid", "uri", "unknown"]
ACCEPTED: list[dict[str, Any]] = [
    {"type": "object", "properties": {"a": SCHEMA}, "required": ["a"], "additionalProperties": {"type": "integer"}},
    {"type": "array", "prefixItems": [SCHEMA], "items": {"type": "null"}, "minItems": 1, "maxItems": 4},
    {"anyOf": [SCHEMA, {"type": "number", "multipleOf": 0.5, "exclusiveMinimum": 0, "maximum": 9}]},
    {"allOf": [{"type": "object", "properties": {"a": SCHEMA}}, {"required": ["a"]}]},
    {"$ref": "#/$defs/node", "$defs": {"node": {"type": "object", "properties": {"next": {"$ref": "#/$defs/node"}}}}},
    {"type": "string", "minLength": 2, "maxLength": 9, "title": "t", "description": "d", "default": "x"},
    {"type": "object", "patternProperties": {"^x-": SCHEMA}, "minProperties": 1},
    {"oneOf": [{"type": "string"}, {"type": "integer"}]},
]


class Letters:
    """256 tokens of one byte, and an end."""

    bos_token_id = None
    eos_token_id = 256
    special_token_ids = (256,)
    tokens = [*(bytes([byte]) for byte in range(256)), b"<end>"]  # noqa: RUF012 - the library looks for a list

    def __call__(self, text: bytes) -> list[int]:
        return list(text)


@pytest.fixture(scope="module")
def letters() -> llguidance.LLTokenizer:
    return llguidance.LLTokenizer(llguidance.TokenizerWrapper(Letters()))


def matches(letters: llguidance.LLTokenizer, constraint: Constraint, text: str) -> bool:
    matcher = compile_matcher(constraint, letters, (256,), Limits())
    ids = list(text.encode())
    return matcher.try_consume_tokens(ids) == len(ids) and matcher.is_accepting()


def test_the_document_names_what_is_refused(letters: llguidance.LLTokenizer) -> None:
    table = DOCUMENT.read_text().split("<!-- refused")[1].split("\nAlso:")[0]
    cells = [line.split("|")[1] for line in table.splitlines() if line.startswith("| `")]
    assert sorted(re.findall("`([^`]+)`", " ".join(cells))) == sorted(PROBES)


@pytest.mark.parametrize("keyword", PROBES)
def test_a_refused_keyword_is_named(letters: llguidance.LLTokenizer, keyword: str) -> None:
    with pytest.raises(GrammarError, match=f"not supported: .*{re.escape(keyword)}"):
        compile_matcher(Constraint.json_schema(PROBES[keyword]), letters, (256,), Limits())


@pytest.mark.parametrize("schema", [*ACCEPTED, *({"type": "string", "format": name} for name in FORMATS)])
def test_what_is_not_listed_is_served(letters: llguidance.LLTokenizer, schema: dict[str, Any]) -> None:
    compile_matcher(Constraint.json_schema(schema), letters, (256,), Limits())


@pytest.mark.parametrize("keyword", ["properties", "required", "type", "enum", "patternProperties"])
def test_a_keyword_with_a_number_is_refused(letters: llguidance.LLTokenizer, keyword: str) -> None:
    with pytest.raises(GrammarError, match="cannot be used"):
        compile_matcher(Constraint.json_schema({"type": "object", keyword: 5}), letters, (256,), Limits())


def vectors(kind: str) -> list[dict[str, Any]]:
    path = VECTORS / "llamacpp-grammar-integration.json"
    if not path.is_file():
        pytest.skip(f"no vectors of llama.cpp in {VECTORS}")
    found: list[dict[str, Any]] = json.loads(path.read_text())[kind]
    return found


def test_schemas_of_llama_cpp(letters: llguidance.LLTokenizer) -> None:
    """What it rejects is rejected, unless it is valid (it forbids more blanks and digits); most else is taken."""
    jsonschema = pytest.importorskip("jsonschema", reason="jsonschema is not installed")
    taken = total = 0
    for case in vectors("schema"):
        try:
            constraint = Constraint.json_schema(case["schema"])
            compile_matcher(constraint, letters, (256,), Limits())
        except GrammarError:
            continue
        validator = jsonschema.Draft202012Validator(json.loads(case["schema"]))
        for text in case["reject"]:
            if matches(letters, constraint, text):
                assert validator.is_valid(json.loads(text)), (case["name"], text)
        taken += sum(matches(letters, constraint, text) for text in case["accept"])
        total += len(case["accept"])
    assert total > 100
    assert taken > 0.9 * total


def test_grammars_of_llama_cpp(letters: llguidance.LLTokenizer) -> None:
    tried = 0
    for case in vectors("grammar"):
        try:
            constraint = Constraint.lark(any_to_lark(case["grammar"]))
            compile_matcher(constraint, letters, (256,), Limits())
        except (GbnfToLarkError, GrammarError):
            continue  # rules of tokens and doubled repetitions, which the library's converter gets wrong
        tried += 1
        for expected in ("accept", "reject"):
            for text in case[expected]:
                assert matches(letters, constraint, text) is (expected == "accept"), (case["name"], text)
    assert tried > 10


def test_formats_know_the_calendar(letters: llguidance.LLTokenizer) -> None:
    day = Constraint.json_schema({"type": "string", "format": "date"})
    right = ["2024-02-29", "2000-02-29", "2023-12-31"]
    wrong = ["2023-02-29", "1900-02-29", "2023-04-31", "2023-13-01", "2023-1-01"]
    assert [matches(letters, day, f'"{text}"') for text in [*right, *wrong]] == [True] * 3 + [False] * 5
    both = Constraint.json_schema({"type": "string", "format": "date", "pattern": "^20"})
    assert matches(letters, both, '"2024-02-29"')
    assert not matches(letters, both, '"1996-02-29"')


def test_only_schemas_are_made_strict() -> None:
    data = {"enum": [{"format": "date"}], "properties": {"format": {"const": {"pattern": r"\S"}}}}
    assert json.loads(strict_schema(json.dumps(data))) == data
    found = json.loads(strict_schema('{"items": [{"pattern": "[a\\\\S]\\\\\\\\S"}]}'))
    assert found["items"][0]["pattern"] == r"[a[^\s\x{FEFF}]]\\S"


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: Constraint.choice([]), "1 to"),
        (lambda: Constraint.choice(["", "a"]), "empty"),
        (lambda: Constraint.regex("a" * 300_000), "bytes"),
        (lambda: Constraint.regex("\ud800"), "Unicode"),
        (lambda: Constraint.regex("a").triggered([""]), "after"),
        (lambda: Constraint.regex("a").triggered([-1]), "after"),
        (lambda: Constraint.regex("a").triggered(["x"] * 65), "after"),
        (lambda: Constraint.json_schema("[" * 65 + "]" * 65), "deep"),
    ],
)
def test_a_constraint_that_is_none(make: Any, words: str) -> None:
    with pytest.raises(GrammarError, match=words):
        make()


def test_brackets_in_strings_do_not_nest() -> None:
    assert Constraint.json_schema({"const": "[" * 99 + '"{'}).kind is Kind.JSON_SCHEMA


def test_a_constraint_is_a_plain_record() -> None:
    one = Constraint.choice(["a", "b"]).triggered(["<x>", 7], again=True)
    assert Constraint(**attrs.asdict(one)) == one
    assert hash(one) == hash(Constraint(**attrs.asdict(one)))
    with pytest.raises(RequestError, match="constraint must be"):
        SamplingParams(constraint={"type": "object"})  # type: ignore[arg-type]
