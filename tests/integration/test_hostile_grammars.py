# SPDX-License-Identifier: Apache-2.0
"""Grammars that are meant to hurt: each ends in a typed error or is served, within its time, and nothing else stops."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from pathlib import Path

import psutil
import pytest

from tramontane.errors import GrammarError
from tramontane.grammar import Constraint, compiler
from tramontane.grammar.compiler import GrammarCompiler
from tramontane.grammar.trial import Helper, Limits
from tramontane.grammar.vocabulary import Vocabulary

SECONDS = 3.0
REFUSED, EITHER = True, False


@pytest.fixture(scope="module")
def vocabulary() -> Vocabulary:
    demo = pytest.importorskip("tramontane_loader_demo", reason="the demo plugin is not installed")
    from tramontane.tokenizer import Tokenizer

    tokenizer = Tokenizer.from_directory(Path(demo.__file__).parent / "model")
    return Vocabulary.of(tokenizer, tokenizer.vocab_size)


@pytest.fixture(scope="module")
def grammars(vocabulary: Vocabulary) -> Iterator[GrammarCompiler]:
    made = GrammarCompiler(lambda: vocabulary, Limits(seconds=SECONDS))
    made.compile(Constraint.regex("warm up")).result(60)
    yield made
    made.close()


def nested(depth: int) -> str:
    return '{"type":"array","items":' * depth + "true" + "}" * depth


def chain(count: int, link: Callable[[str], object]) -> str:
    """Definitions that each refer to the next one."""
    links: dict[str, object] = {f"a{i}": link(f"#/$defs/a{i + 1}") for i in range(count)}
    return json.dumps({"$defs": links | {f"a{count}": {"type": "string"}}, "$ref": "#/$defs/a0"})


def reference(to: str) -> object:
    return {"$ref": to}


def pair(to: str) -> object:
    return {"type": "object", "properties": {"x": {"$ref": to}, "y": {"$ref": to}}}


def rules(count: int, one: str) -> str:
    body = "".join(one.format(a=i, b=i + 1) for i in range(count))
    return f'start: {one[0]}0\n{body}{one[0]}{count}: "x"\n'


ATTACKS: dict[str, tuple[bool, Callable[[], Constraint]]] = {
    "nested quantifiers": (EITHER, lambda: Constraint.regex("(a+)+b")),
    "ambiguous alternatives": (EITHER, lambda: Constraint.regex("(a|a)*c")),
    "counted twice": (EITHER, lambda: Constraint.regex("a{1,100000}{1,100000}")),
    "counted and nested": (EITHER, lambda: Constraint.regex("(" * 7 + "a" + "{0,9})" * 7)),
    "exponential automaton": (EITHER, lambda: Constraint.regex("(.*[ab].{12}[cd].{12})|(.*x.{30})")),
    "30000 groups": (REFUSED, lambda: Constraint.regex("(" * 30_000 + "a" + ")" * 30_000)),
    "invalid pattern": (REFUSED, lambda: Constraint.regex("[z-a")),
    "complement": (REFUSED, lambda: Constraint.lark(SLOW)),
    "pattern in a schema": (EITHER, lambda: Constraint.json_schema({"type": "string", "pattern": "(a+)+b"})),
    "invalid pattern in a schema": (REFUSED, lambda: Constraint.json_schema({"type": "string", "pattern": "("})),
    "schema 30000 deep": (REFUSED, lambda: Constraint.json_schema(nested(9_000))),
    "schema 5000 references long": (REFUSED, lambda: Constraint.json_schema(chain(5_000, reference))),
    "schema that doubles": (REFUSED, lambda: Constraint.json_schema(chain(3_000, pair))),
    "schema of itself": (REFUSED, lambda: Constraint.json_schema({"$ref": "#"})),
    "remote reference": (REFUSED, lambda: Constraint.json_schema({"$ref": "http://127.0.0.1:9/a.json"})),
    "file reference": (REFUSED, lambda: Constraint.json_schema({"$ref": "file:///etc/passwd"})),
    "no schema": (REFUSED, lambda: Constraint.json_schema("[1, 2")),
    "wrong type": (REFUSED, lambda: Constraint.json_schema({"type": {"a": 1}})),
    "huge numbers": (
        EITHER,
        lambda: Constraint.json_schema({"type": "number", "multipleOf": 1e-300, "minimum": 1e300}),
    ),
    "huge lengths": (EITHER, lambda: Constraint.json_schema({"type": "string", "minLength": 10**9})),
    "left recursion": (EITHER, lambda: Constraint.lark('start: start "a" | "a"')),
    "empty cycle": (REFUSED, lambda: Constraint.lark("start: a\na: b\nb: a")),
    "nullable cycles": (EITHER, lambda: Constraint.lark("start: a*\na: b*\nb: c*\nc: ")),
    "30000 parentheses": (REFUSED, lambda: Constraint.lark("start: " + "(" * 30_000 + '"a"' + ")" * 30_000)),
    "10000 rules in a row": (REFUSED, lambda: Constraint.lark(rules(10_000, "a{a}: a{b}\n"))),
    "10000 terminals in a row": (REFUSED, lambda: Constraint.lark(rules(8_000, 'A{a}: A{b} "y"\n'))),
    "terminals that double": (REFUSED, lambda: Constraint.lark(rules(40, "A{a}: A{b} A{b}\n"))),
    "rules that double": (EITHER, lambda: Constraint.lark(rules(40, "a{a}: a{b} a{b} |\n"))),
    "deep llguidance": (REFUSED, lambda: Constraint.llguidance('{"grammars":[{"json_schema":' + nested(9_000) + "}]}")),
    "wrong llguidance": (REFUSED, lambda: Constraint.llguidance("{}")),
    "lone surrogate": (REFUSED, lambda: Constraint.choice(["\ud800"])),
    "no choices": (REFUSED, lambda: Constraint.choice([])),
    "too many choices": (REFUSED, lambda: Constraint.choice([str(i) for i in range(10_000)])),
    "too large": (REFUSED, lambda: Constraint.regex("a" * 300_000)),
}


def test_the_helper_has_the_limits_it_is_given(vocabulary: Vocabulary) -> None:
    pattern = Constraint.regex("[a-z]{3,40}@[a-z]{3,40}")
    for limits, refused in ((Limits(), False), (Limits(lexer_fuel=1), True)):
        helper = Helper(vocabulary, limits)
        try:
            with pytest.raises(GrammarError) if refused else nullcontext():
                helper.check(pattern)
        finally:
            helper.stop()


SLOW = "start: A\nA: /.*a.{18}/ & /.*b.{17}/ & ~/.*c.{16}/"
"""Takes minutes, if nobody stops it."""
ASKER = """
import sys, threading, time
from tramontane.grammar import Constraint
from tramontane.grammar.trial import Helper, Limits
from tramontane.grammar.vocabulary import Vocabulary
helper = Helper(Vocabulary.loads(sys.stdin.readline()), Limits(seconds=600))
helper.check(Constraint.regex("warm up"))
print(helper._process.pid, flush=True)
helper.check(Constraint.lark(sys.argv[1]))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere nothing tells a process of its parent's death")
def test_a_helper_dies_with_who_asks_in_the_middle_of_a_trial(vocabulary: Vocabulary) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", ASKER, SLOW], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as asker:
        assert asker.stdin is not None
        assert asker.stdout is not None
        asker.stdin.write(vocabulary.dumps() + "\n")
        asker.stdin.flush()
        helper = psutil.Process(int(asker.stdout.readline()))
        begun, until = sum(helper.cpu_times()[:2]), time.monotonic() + 30
        while sum(helper.cpu_times()[:2]) < begun + 0.1:  # it tries
            assert time.monotonic() < until
            time.sleep(0.01)
        asker.kill()
    assert psutil.wait_procs([helper], timeout=10)[1] == [], "it goes on for nobody"


@pytest.mark.parametrize("name", ATTACKS)
def test_an_attack_costs_its_time_and_no_more(grammars: GrammarCompiler, name: str) -> None:
    refused, attack = ATTACKS[name]
    began = time.monotonic()
    message = ""
    try:
        grammars.compile(attack()).result(60)
    except GrammarError as error:
        message = error.message
    assert message or not refused
    assert "0x" not in message
    assert "backtrace" not in message
    assert time.monotonic() - began < 10 * SECONDS  # its own time, a new helper, and a busy machine
    assert grammars.compile(Constraint.regex(f"after {len(name)}")).result(60).matcher().is_error() is False


def test_the_cache_is_bounded(vocabulary: Vocabulary, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compiler, "MOST_CACHED", 10)
    monkeypatch.setattr(compiler, "MOST_CACHED_BYTES", 400)
    grammars = GrammarCompiler(lambda: vocabulary)
    first = grammars.compile(Constraint.choice(["x0"]))
    for number in range(40):
        grammars.compile(Constraint.choice([f"x{number}"])).result(60)
        assert len(grammars._cache) <= 10
    assert grammars.compile(Constraint.choice(["x39"])) is grammars.compile(Constraint.choice(["x39"]))
    assert grammars.compile(Constraint.choice(["x0"])) is not first
    grammars.compile(Constraint.choice(["y" * 380])).result(60)
    assert sum(len(one.value) for one in grammars._cache) <= 400
    assert len(grammars._cache) < 4
    grammars.close()


def test_closing_leaves_no_process(vocabulary: Vocabulary) -> None:
    for _ in range(3):
        before = set(psutil.Process().children())
        grammars = GrammarCompiler(lambda: vocabulary)
        grammars.compile(Constraint.regex("yes|no")).result(60)
        assert set(psutil.Process().children()) - before
        grammars.close()
        assert not set(psutil.Process().children()) - before, "one that was not waited for is a child too"


@pytest.mark.skipif(not hasattr(signal, "SIGSTOP"), reason="stops a process")
def test_closing_waits_for_no_trial(vocabulary: Vocabulary) -> None:
    before = set(psutil.Process().children())
    grammars = GrammarCompiler(lambda: vocabulary, Limits(seconds=100))
    grammars.compile(Constraint.regex("yes|no")).result(60)
    (helper,) = set(psutil.Process().children()) - before
    helper.suspend()
    tried, waiting = grammars.compile(Constraint.regex("never")), grammars.compile(Constraint.regex("later"))
    began = time.monotonic()
    grammars.close()
    assert time.monotonic() - began < 50
    for future in (tried, waiting):
        with pytest.raises(GrammarError, match="being closed"):
            future.result(0)


def test_the_queue_is_bounded(vocabulary: Vocabulary, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compiler, "MOST_WAITING", 3)
    grammars = GrammarCompiler(lambda: vocabulary)
    for _ in range(3):
        grammars._queue.append(Constraint.regex("it waits"))
    with pytest.raises(GrammarError, match="wait to be compiled"):
        grammars.compile(Constraint.regex("one too many"))
    grammars.close()
