# SPDX-License-Identifier: Apache-2.0
"""Hostile chat templates: nothing leaves the sandbox, nothing runs long, nothing grows large."""

from __future__ import annotations

import resource
import sys
import time
from pathlib import Path

import pytest

from tramontane.chat import ChatTemplate, RenderLimits, TemplateError, TemplateFailedError, TemplateLimitError
from tramontane.errors import RequestError

MESSAGES = [{"role": "user", "content": "hi"}]
SECONDS = 1.0
MEGABYTES = 700

ESCAPES = {
    "cycler": "{{ cycler.__init__.__globals__.os.popen('touch CANARY').read() }}",
    "lipsum": "{{ lipsum.__globals__['os'].popen('touch CANARY').read() }}",
    "self": "{{ self.__init__.__globals__.__builtins__.__import__('os').system('touch CANARY') }}",
    "subclasses": "{{ ''.__class__.__mro__[1].__subclasses__() }}",
    "attr filter": "{{ (''|attr('__class__')) ~ (''|attr('__class__')).__mro__ }}",
    "map attribute": "{{ ['']|map(attribute='__class__.__mro__')|list }}",
    "namespace": "{{ namespace.__init__.__globals__ }}",
    "namespace store": "{% set ns = namespace() %}{% set ns.__class__ = 1 %}",
    "namespace keyword": "{{ namespace(__class__=1) }}",
    "raise_exception": "{{ raise_exception.__globals__['os'] }}",
    "strftime": "{{ strftime_now.__globals__.keys() }}",
    "format": "{{ '{0.__class__.__mro__}'.format(messages) }}",
    "format stored": "{% set f = '{0.__class__}'.format %}{{ f(messages) }}",
    "format by filter": "{{ ('{0.__class__.__init__.__globals__}'|attr('format'))(raise_exception) }}",
    "format_map": "{{ '{a.__class__.__mro__}'.format_map({'a': 1}) }}",
    "format_map stored": "{% set f = ('{a.__class__}'|attr('format_map')) %}{{ f({'a': 1}) }}",
    "macro": "{% macro m() %}{% endmacro %}{{ m.__init__.__globals__ }}",
    "loop": "{% for x in [1] %}{{ loop._iterator.gi_frame }}{{ loop.__class__.__mro__[1] }}{% endfor %}",
    "generator frame": "{{ ([1]|map('string')).gi_frame.f_globals.keys() }}",
    "include": "{% include '/etc/passwd' %}",
    "import": "{% import '/etc/passwd' as x %}",
    "extends": "{% extends '/etc/passwd' %}",
    "to_bytes": "{{ (1).to_bytes(1000000000, 'big') }}",
    "translate": "{{ 'aa'.translate({97: 'b' * 1000}) }}",
    "mutate": "{{ messages[0].update({'role': 'x'}) }}",
    "missing filter": "{{ 'a<b'|striptags }}",
}

DOUBLING = "{{% set ns = namespace(x={start}) %}}{{% for i in range(60) %}}{{% set ns.x = {step} %}}{{% endfor %}}{end}"


def doubling(start: str, step: str, end: str = "") -> str:
    return DOUBLING.format(start=start, step=step, end=end)


LAUGHS = doubling("['ha']", "[ns.x, ns.x, ns.x]", "{use}").replace("range(60)", "range(13)")

BOMBS = {
    "empty ranges": "{% for i in range(99999) %}{% for j in range(99999) if i < 0 %}{% endfor %}{% endfor %}",
    "range": "{% for i in range(10**9) %}x{% endfor %}",
    "nested ranges": "{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}",
    "filtered ranges": "{% for i in range(99999) %}{% for j in range(99999) if j < 0 %}{% endfor %}{% endfor %}",
    "silent work": "{% for i in range(99999) %}{% for j in range(99999) %}{% set x = i * j %}{% endfor %}{% endfor %}",
    "much text": "{% for i in range(99999) %}" + "text " * 1000 + "{% endfor %}",
    "much text in a macro": "{% macro m() %}" + "text " * 1000 + "{% endmacro %}"
    "{% set x %}{% for i in range(99999) %}{{ m() }}{{ m() }}{% endfor %}{% endset %}",
    "much text in branches": "{% set x %}{% for i in range(99999) %}{% if i %}"
    + "t" * 9999
    + "{% endif %}{% endfor %}{% endset %}",
    "recursive macro": "{% macro m(n) %}{% if n %}{{ m(n - 1) }}{{ m(n - 1) }}{% endif %}{% endmacro %}{{ m(60) }}",
    "endless macro": "{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}",
    "recursive loop": "{% for x in [1, 2] recursive %}{{ loop([1, 2]) }}{% endfor %}",
    "text times": "{{ 'a' * 10**9 }}",
    "times text": "{{ 10**9 * 'a' }}",
    "list times": "{{ ([1] * 10**9)|length }}",
    "tower": "{{ 9**(9**9) }}",
    "negative tower": "{{ 2**-(10**9) }}",
    "squaring": doubling("3", "ns.x * ns.x"),
    "text plus": doubling("'ab'", "ns.x + ns.x"),
    "text tilde": doubling("'ab'", "ns.x ~ ns.x"),
    "list plus": doubling("[1]", "ns.x + ns.x"),
    "join": doubling("'ab'", "[ns.x, ns.x]|join"),
    "join with": doubling("'ab'", "ns.x.join([ns.x, ns.x])"),
    "join by map": doubling("'ab'", "[ns.x, ns.x]|map('string')|join(ns.x)"),
    "replace": doubling("'ab'", "ns.x|replace('a', ns.x)"),
    "replace nothing": doubling("'ab'", "ns.x.replace('', ns.x)"),
    "percent": doubling("'ab'", "'%s%s' % (ns.x, ns.x)"),
    "format filter": doubling("'ab'", "'%s%s'|format(ns.x, ns.x)"),
    "format method": doubling("'ab'", "'{0}{0}'.format(ns.x)"),
    "set block": "{% set ns = namespace(x='ab') %}{% for i in range(60) %}{% set y %}{{ ns.x }}{{ ns.x }}{% endset %}"
    "{% set ns.x = y %}{% endfor %}",
    "wide percent": "{{ '%1000000000d' % 1 }}",
    "starred percent": "{{ '%*d' % (1000000000, 1) }}",
    "wide format": "{{ '{:1000000000d}'.format(1) }}",
    "nested wide format": "{{ '{:{w}}'.format(1, w=1000000000) }}",
    "wide format filter": "{{ '%1000000000d'|format(1) }}",
    "center": "{{ 'a'|center(10**9) }}",
    "ljust": "{{ 'a'.ljust(10**10) }}",
    "zfill": "{{ 'a'.zfill(10**10) }}",
    "indent": "{{ ('a\\n' * 99999)|indent(99999) }}",
    "indent text": "{{ ('a\\n' * 99999)|indent('b' * 99999) }}",
    "json indent": "{{ messages|tojson(indent=10**9) }}",
    "batch": "{{ [1]|batch(10**9, 'x')|list|length }}",
    "slice": "{{ [1]|slice(10**9)|list|length }}",
    "round": "{{ 2.5|round(10**9, 'ceil') }}",
    "map center": "{{ range(99999)|map('string')|map('center', 99999)|list|length }}",
    "sum lists": "{{ (range(9999)|batch(1)|list)|sum(start=[]) }}",
    "laughs printed": LAUGHS.replace("{use}", "{{ ns.x }}"),
    "laughs in json": LAUGHS.replace("{use}", "{{ ns.x|tojson|length }}"),
    "laughs joined": LAUGHS.replace("{use}", "{{ ns.x|join|length }}"),
    "laughs compared": LAUGHS.replace("{use}", "{% set y = ns.x %}") + LAUGHS.replace("{use}", "{{ y == ns.x }}"),
    "laughs tested": LAUGHS.replace("{use}", "{{ ns.x is in [1] }}"),
    "laughs by append": "{% set ns = namespace(x=['ha']) %}{% for i in range(60) %}{% set y = [] %}"
    "{% set _ = y.append(ns.x) %}{% set _ = y.append(ns.x) %}{% set ns.x = y %}{% endfor %}{{ ns.x }}",
    "laughs by varargs": "{% macro m() %}{% set ns.x = varargs %}{% endmacro %}{% set ns = namespace(x=1) %}"
    "{% for i in range(60) %}{{ m(ns.x, ns.x) }}{% endfor %}{{ ns.x }}",
    "laughs by dict": doubling("{'a': 1}", "dict(a=ns.x, b=ns.x)", "{{ ns.x }}"),
    "list of itself": "{% set x = [] %}{% set _ = x.append(x) %}{{ x|tojson }}",
    "growing list": "{% set x = [1] %}{% for y in x %}{% set _ = x.append(y) %}{% endfor %}",
    "slices": "{% set x = 'a' * 9999999 %}{% for i in range(99999) %}{% set y = x[1:] %}{% endfor %}",
    "comparisons": "{% set x = 'a' * 9999999 %}{% set z = x ~ 'b' %}{% for i in range(99999) %}"
    "{% set y = x ~ '' == z[:-1] %}{% endfor %}",
    "wide separators": "{{ range(99999)|list|tojson(separators=('a' * 9999, ':')) }}",
    "deep indent": "{% set ns = namespace(x=range(99999)|list) %}{% for i in range(90) %}{% set ns.x = [ns.x] %}"
    "{% endfor %}{{ ns.x|tojson(indent=90)|length }}",
    "large division": "{% set x = ('f' * 9999999)|int(base=16) %}{{ x // (x // 3) }}",
    "hoarding texts": "{% set x = 'a' * 9999999 %}{% set l = [] %}{% for i in range(99999) %}"
    "{% set _ = l.append(x|reverse) %}{% endfor %}",
    "hoarding lists": "{% set x = range(99999)|list %}{% set l = [] %}{% for i in range(99999) %}"
    "{% set _ = l.append(x|batch(1)|list) %}{% endfor %}",
    "hoarding small lists": "{% set l = [] %}{% for i in range(99999) %}{% for j in range(99999) %}"
    "{% set _ = l.append([i, j, i, j]) %}{% endfor %}{% endfor %}",
    "straight comparisons": "{% set x = 'a' * 9999999 %}{% set z = 'a' * 9999999 %}" + "{% set y = x == z %}" * 4000,
    "hashing": "{% macro m() %}{% set ns.x = varargs %}{% endmacro %}{% set ns = namespace(x=1) %}"
    "{% for i in range(60) %}{{ m(ns.x, ns.x) }}{% endfor %}{% set y = {ns.x: 1} %}",
    "date": "{{ strftime_now('%1000000000Y') }}",
    "split": "{% set x = 'a ' * 4999999 %}{{ x.split(' ')|length }}{{ x|list|length }}",
}


@pytest.mark.parametrize("name", list(ESCAPES))
def test_nothing_leaves_the_sandbox(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises((TemplateError, TemplateFailedError)) as raised:
        ChatTemplate(ESCAPES[name]).render(MESSAGES)
    assert not list(tmp_path.iterdir())
    assert " at 0x" not in str(raised.value)


@pytest.mark.parametrize("name", list(BOMBS))
def test_nothing_runs_long_or_grows_large(name: str) -> None:
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    template = ChatTemplate(BOMBS[name], limits=RenderLimits(seconds=SECONDS / 10))
    start = time.thread_time()
    with pytest.raises((TemplateFailedError, TemplateLimitError)):
        template.render(MESSAGES)
    assert time.thread_time() - start < SECONDS
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    assert grown < MEGABYTES * (2**20 if sys.platform == "darwin" else 2**10)


def test_bombs_in_what_a_request_brings_are_stopped_too() -> None:
    loops = "{% for i in range(n) %}{% for j in range(n) %}{% endfor %}{% endfor %}"
    template = ChatTemplate(loops, limits=RenderLimits(seconds=0.2))
    with pytest.raises(TemplateLimitError, match=r"longer than 0\.2 s"):
        template.render(MESSAGES, template_kwargs={"n": 99_999})
    deep: list[object] = []
    for _ in range(100_000):
        deep = [deep]
    with pytest.raises(RequestError, match="levels deep"):
        template.render(MESSAGES, template_kwargs={"n": deep})


@pytest.mark.parametrize(
    "text",
    [
        "{{ " + "(" * 50_000 + "1" + ")" * 50_000 + " }}",
        "{% if a %}" * 5_000,
        "{% if 1 %}" * 300 + "{% endif %}" * 300,
        "{{ 1" + " + 1" * 30_000 + " }}",
        "{{ " + "not " * 30_000 + "1 }}",
        "x" * 256_001,
        "{{ 0x" + "f" * 200_000 + " // 3 }}",
        "{% for %}",
        "{{ 'open",
    ],
    ids=["parentheses", "unclosed", "nested ifs", "sum", "nots", "large", "large number", "syntax", "open string"],
)
def test_templates_that_cannot_be_compiled_are_refused(text: str) -> None:
    with pytest.raises(TemplateError):
        ChatTemplate(text)


def test_honest_work_fits_the_limits() -> None:
    text = (
        "{% set ns = namespace(out='') %}{% for m in messages %}{% set c = m.content | trim %}"
        "{% if loop.index0 % 2 == 0 %}{{ '<u>' + c + '</u>' }}{% else %}{{ '<a>' ~ c[:] ~ '</a>' }}{% endif %}"
        "{% if 'zzz' in c or c == 'never' %}!{% endif %}{% endfor %}"
    )
    messages = [{"role": ("user", "assistant")[i % 2], "content": "word " * 400} for i in range(2_000)]
    start = time.thread_time()
    rendered = ChatTemplate(text).render(messages).text
    assert len(rendered) == 2_000 * (1_999 + 7)
    assert time.thread_time() - start < 3
