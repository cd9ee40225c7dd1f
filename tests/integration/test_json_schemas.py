# SPDX-License-Identifier: Apache-2.0
"""JSON Schema: nothing invalid is accepted (the official test suite), and what the demo model writes is valid.

The suite is that of https://github.com/json-schema-org/JSON-Schema-Test-Suite, as in the source distribution of the
package ``jsonschema`` (its folder ``json/tests``); ``scripts/json_schema_suite.py`` fetches it.
"""

from __future__ import annotations

import json
import os
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tramontane import LLM, SamplingParams
from tramontane.errors import GrammarError
from tramontane.grammar import Constraint
from tramontane.grammar.trial import Limits, compile_matcher
from tramontane.grammar.vocabulary import Vocabulary
from tramontane.requests import FinishReason

ROOT = Path(__file__).resolve().parents[2]
SUITE = Path(os.environ.get("JSON_SCHEMA_TEST_SUITE", ROOT / ".cache" / "json-schema-test-suite"))
DRAFTS = ("draft2020-12", "draft2019-09", "draft7", "draft6", "draft4", "draft3")
LEAST_COMPILED = {"draft2020-12": 170, "draft2019-09": 170, "draft7": 170, "draft6": 170, "draft4": 140, "draft3": 60}
"""Schemas of each draft that must not be refused, so that the test means something."""


@pytest.fixture(scope="module")
def vocabulary() -> Vocabulary:
    demo = pytest.importorskip("tramontane_loader_demo", reason="the demo plugin is not installed")
    from tramontane.tokenizer import Tokenizer

    tokenizer = Tokenizer.from_directory(Path(demo.__file__).parent / "model")
    return Vocabulary.of(tokenizer, tokenizer.vocab_size)


def accepts(matcher: Any, ids: list[int]) -> bool:
    copy = matcher.deep_copy()
    return copy.try_consume_tokens(ids) == len(ids) and copy.is_accepting()


@pytest.mark.parametrize("draft", DRAFTS)
def test_no_invalid_instance_is_accepted(vocabulary: Vocabulary, draft: str) -> None:
    if not (SUITE / draft).is_dir():
        pytest.skip(f"no JSON-Schema-Test-Suite in {SUITE}; scripts/json_schema_suite.py fetches it")
    tokenizer, limits = vocabulary.build(), Limits()
    wrong, compiled = [], 0
    for path in sorted((SUITE / draft).rglob("*.json")):
        for case in json.loads(path.read_text()):
            try:
                constraint = Constraint.json_schema(case["schema"])
                matcher = compile_matcher(constraint, tokenizer, vocabulary.eos_ids, limits)
            except GrammarError:
                continue
            compiled += 1
            for one in case["tests"]:
                texts = {json.dumps(one["data"]), json.dumps(one["data"], separators=(",", ":"), ensure_ascii=False)}
                spelled = [tokenizer.tokenize_bytes(text.encode("utf-8", "ignore")) for text in texts]
                if not one["valid"] and any(accepts(matcher, ids) for ids in spelled):
                    wrong.append((path.name, case["description"], one["description"]))
    assert wrong == []
    assert compiled >= LEAST_COMPILED[draft]


def test_escapes_do_not_get_round_a_property(vocabulary: Vocabulary) -> None:
    tokenizer = vocabulary.build()
    schema = Constraint.json_schema({"type": "object", "properties": {"foo": {"type": "integer"}}})
    matcher = compile_matcher(schema, tokenizer, vocabulary.eos_ids, Limits())
    assert accepts(matcher, tokenizer.tokenize_str('{"foo": 1, "bar": "\\n"}'))
    assert not accepts(matcher, tokenizer.tokenize_str('{"\\u0066oo": "x"}'))


# --- what the demo model writes ---------------------------------------------------------------------------------------


def made(draw: random.Random, depth: int = 0) -> dict[str, Any]:
    """A schema at random, of the kinds that programs ask for."""
    kinds = ["string", "integer", "number", "boolean", "enum", "pattern", "format", "const", "null"]
    kind = draw.choice(kinds if depth >= 3 else [*kinds, "object", "array", "object", "anyOf"])
    low = draw.randint(-5, 50)
    match kind:
        case "string":
            return {"type": "string", "minLength": draw.randint(0, 3), "maxLength": draw.randint(4, 20)}
        case "integer":
            return {"type": "integer", "minimum": low, "maximum": low + draw.randint(0, 1000)}
        case "number":
            return {"type": "number", "exclusiveMinimum": low, "maximum": low + 9.5}
        case "enum":
            return {"enum": draw.sample(["red", "green", 3, None, True, 2.5, "a b", [1], {"k": "v"}], 3)}
        case "pattern":
            return {"type": "string", "pattern": draw.choice(["^[a-z]{2,5}$", "^\\d{3}-\\d{2}$", "^(yes|no)!?$"])}
        case "format":
            return {"type": "string", "format": draw.choice(["date", "time", "date-time", "uuid", "ipv4"])}
        case "const":
            return {"const": draw.choice(["fixed", 7, None])}
        case "array":
            return {"type": "array", "items": made(draw, depth + 1), "minItems": draw.randint(0, 2), "maxItems": 3}
        case "anyOf":
            return {"anyOf": [made(draw, depth + 1) for _ in range(2)]}
        case "object":
            names = draw.sample(["name", "age", "city", "tags", "x-y", "ü"], draw.randint(1, 3))
            needed = [name for name in names if draw.random() < 0.7]
            schema = {"type": "object", "properties": {name: made(draw, depth + 1) for name in names}}
            return schema | {"required": needed, "additionalProperties": False}
    return {"type": kind}


@pytest.fixture(scope="module")
def llm() -> Iterator[LLM]:
    with LLM("demo") as model:
        yield model


@pytest.mark.parametrize("count", [20, pytest.param(200, marks=pytest.mark.full)])
def test_outputs_are_valid_unless_they_are_cut(llm: LLM, count: int) -> None:
    jsonschema = pytest.importorskip("jsonschema", reason="jsonschema is not installed")
    draw = random.Random(count)
    schemas = [made(draw) for _ in range(count)]
    params = [
        SamplingParams(max_tokens=120, temperature=0.9, seed=number, constraint=Constraint.json_schema(schema))
        for number, schema in enumerate(schemas)
    ]
    ended = 0
    for schema, answer in zip(schemas, llm.generate(["Once upon a time"] * count, params), strict=True):
        assert answer.finish_reason in (FinishReason.STOP, FinishReason.LENGTH), schema
        if answer.finish_reason is FinishReason.STOP:
            ended += 1
            jsonschema.Draft202012Validator(
                schema, format_checker=jsonschema.Draft202012Validator.FORMAT_CHECKER
            ).validate(json.loads(answer.text))
    assert ended > 0.7 * count
