# SPDX-License-Identifier: Apache-2.0
"""From a constraint to the text of an llguidance grammar. Nothing is compiled here."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

from llguidance import LLMatcher, LLTokenizer

from tramontane.errors import GrammarError
from tramontane.grammar.constraint import Constraint, Kind
from tramontane.grammar.schema import strict_schema

if TYPE_CHECKING:
    from llguidance._lib import JsonCompileOptions

WHITESPACE = r"(\x20|\x0A[\x20\x09]{0,16})"
"""What may stand between the tokens of JSON, once: a space, or a line break with its indentation. Without a bound a
model that likes blanks writes them until it is cut off."""
_STRICT: JsonCompileOptions = {"lenient": False, "coerce_one_of": False, "json_allowed_escapes": '"\\\\bfnrt'}
"""A schema's own ``x-guidance`` may not ask for less than the schema says. Only escapes without which a character
cannot be written are allowed: ``{"\\u0066oo": 1}`` would otherwise get round what a schema says about ``foo``."""
_UNSUPPORTED = re.compile(r"Unimplemented keys: \[(.*)\]")
_NAMED = re.compile(r"(oneOf) constraints are not supported|Unknown (?:format): (\S+)")
_LIST = "docs/structured-output.md lists what is refused"
_MATCH = "matched"


def grammar_text(constraint: Constraint, tokenizer: LLTokenizer, eos_ids: Iterable[int]) -> str:
    """The grammar of a constraint for one vocabulary.

    Raises:
        GrammarError: The value is not of its kind, or a trigger is no token of the vocabulary.
    """
    text = _plain(constraint)
    return _triggered(constraint, text, tokenizer, frozenset(eos_ids)) if constraint.after else text


def explained(message: str) -> GrammarError:
    """The error for what llguidance says about a grammar."""
    found = _UNSUPPORTED.search(message)
    if found:
        names = ", ".join(json.loads(f"[{found[1]}]"))
        return GrammarError(f"the schema uses what is not supported: {names}", hint=_LIST)
    if message.startswith("panic:"):
        return GrammarError("the grammar is too large or too deep to be compiled")
    named = _NAMED.match(message)
    if named:
        message = f"the schema uses what is not supported: {named[1] or 'format'} {named[2] or ''}".strip()
        return GrammarError(message, hint=_LIST)
    if "forced bytes" in message:
        return GrammarError("the model's vocabulary has no tokens that spell what the grammar demands")
    return GrammarError(f"the grammar cannot be used: {message.split('<non-verbose/>')[0].strip()[:2000]}")


def _plain(constraint: Constraint) -> str:
    value = constraint.value
    try:
        match constraint.kind:
            case Kind.JSON_SCHEMA | Kind.JSON_OBJECT:
                schema = strict_schema(value) if constraint.kind is Kind.JSON_SCHEMA else '{"type": "object"}'
                own: JsonCompileOptions = {} if '"x-guidance"' in schema else {"whitespace_pattern": WHITESPACE}
                return LLMatcher.grammar_from_json_schema(schema, defaults=own, overrides=_STRICT)
            case Kind.REGEX:
                return LLMatcher.grammar_from_regex(value)
            case Kind.LARK:
                return _lark(value)
            case Kind.CHOICE:
                return _lark("start: " + " | ".join(map(_literal, json.loads(value))))
            case Kind.LLGUIDANCE:
                return value
    except ValueError as error:
        raise explained(str(error)) from error


def _lark(grammar: str) -> str:
    return json.dumps({"grammars": [{"lark_grammar": grammar}]})


def _literal(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)


def _triggered(constraint: Constraint, text: str, tokenizer: LLTokenizer, eos_ids: frozenset[int]) -> str:
    """Free text, a trigger, the constraint, and so on: a grammar around the constraint's own.

    A trigger of several tokens is a lexeme that ends as soon as its suffix appears, whatever longer text the free
    lexeme could go on with; other special tokens may stand anywhere in free text.
    """
    inner: dict[str, Any] = json.loads(text)
    first = inner["grammars"][0]
    first.setdefault("name", _MATCH)
    tokens, texts = _split(constraint.after, tokenizer)
    rules = [f"head_{place}[suffix={_literal(one)}]: TEXT" for place, one in enumerate(texts)]
    heads = [f"head_{place}" for place in range(len(texts))]
    if tokens:
        rules.append("head_token: TEXT? " + _token_set(tokens))
        heads.append("head_token")
    special = {t for t in range(tokenizer.vocab_size) if tokenizer.is_special_token(t)} - tokens - eos_ids
    free = "TEXT? (" + _token_set(special) + " TEXT?)*" if special else "TEXT?"
    once = f"passage ({' | '.join(heads)}) @{first['name']}"
    if special:
        rules.append("passage: (TEXT? " + _token_set(special) + ")*")
    else:
        once = once.removeprefix("passage ")
    start = f"start: ({once})* free" if constraint.again else f"start: free | {once}"
    lark = "\n".join([start, f"free: {free}", *rules, r"TEXT: /(.|\n)+/"])
    grammars = [{"name": "triggered", "lark_grammar": lark}, *inner["grammars"]]
    return json.dumps({**inner, "grammars": grammars})


def _split(after: Iterable[str | int], tokenizer: LLTokenizer) -> tuple[set[int], list[str]]:
    """Triggers as special tokens and as texts. A text that is a special token may also be spelled out."""
    tokens, texts = set(), []
    for one in after:
        if isinstance(one, int):
            if not 0 <= one < tokenizer.vocab_size:
                raise GrammarError(f"trigger {one} is no token: the vocabulary has ids 0 to {tokenizer.vocab_size - 1}")
            if tokenizer.is_special_token(one):
                tokens.add(one)
                continue
            one = tokenizer.decode_str([one])
        else:
            ids = tokenizer.tokenize_str(one, parse_special=True)
            if len(ids) == 1 and tokenizer.is_special_token(ids[0]):
                tokens.add(ids[0])
        texts.append(one)
    return tokens, texts


def _token_set(ids: Iterable[int]) -> str:
    return "<[" + ",".join(f"{first}-{last}" if first != last else f"{first}" for first, last in _runs(ids)) + "]>"


def _runs(ids: Iterable[int]) -> Iterator[tuple[int, int]]:
    """Ascending runs of consecutive numbers, as (first, last)."""
    ordered = sorted(ids)
    start = 0
    for place in range(1, len(ordered) + 1):
        if place == len(ordered) or ordered[place] != ordered[place - 1] + 1:
            yield ordered[start], ordered[place - 1]
            start = place
