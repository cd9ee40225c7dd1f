# SPDX-License-Identifier: Apache-2.0
"""What the documentation shows, works: Python blocks run, and every command line is one that the program takes."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import pytest

from tramontane.api import LLM
from tramontane.chat.parsing import ChatFormat, JsonCalls, Reasoning
from tramontane.cli.app import group
from tramontane.cli.state import State
from tramontane.testing.answering import TEMPLATE, answering_llm

ROOT = Path(__file__).resolve().parents[2]
PAGES = sorted(
    path
    for pattern in ("*.md", "docs/*.md", "docs/guides/*.md", "docs/deploy/*.md", "plugins/*/*/README.md")
    for path in ROOT.glob(pattern)
)
ELSEWHERE = {"CONTRIBUTING.md", "docs/adapters.md", "docs/adding-a-model.md"}
"""Pages whose Python is run by a test of their own, is a plugin's file, or needs a model with adapters (as
``tests/integration/test_adapters.py`` has one)."""
CALLS_TOOLS = "docs/chat.md"
"""A page whose model calls tools: a scripted one stands in for it."""
FENCE = re.compile(r"^```(\w*)\n(.*?)^```", re.MULTILINE | re.DOTALL)
INLINE = re.compile(r"(?<!`)`(?:[\w./]*/)?(tramontane [a-z][^`\n]*)`(?!`)")


def name_of(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def blocks(language: str) -> Iterator[tuple[str, str]]:
    for path in PAGES:
        for match in FENCE.finditer(path.read_text(encoding="utf-8")):
            if match[1] == language:
                yield name_of(path), match[2]


PYTHON = [
    pytest.param(name, text, id=f"{name}-{i}")
    for i, (name, text) in enumerate(blocks("python"))
    if name not in ELSEWHERE
]


def weather_model(_reference: str) -> LLM:
    """A model that asks for the weather in Rome, and tells it once it knows."""
    calls = JsonCalls(opens=("<tool_call>",), closes=("</tool_call>",))
    call = '<tool_call>\n{"name": "get_weather", "arguments": {"city": "Rome"}}\n</tool_call>'
    return answering_llm(
        lambda prompt: "The sky over Rome is blue." if "<tool>" in prompt else f"<think>\nThey ask.\n</think>{call}",
        template="{% if tools %}{{ tools | tojson }}{% endif %}" + TEMPLATE,
        chat_format=ChatFormat(reasoning=Reasoning(), calls=(calls,)),
    )


@pytest.mark.parametrize(("page", "text"), PYTHON)
def test_python_runs(page: str, text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("tramontane_loader_demo", reason="the examples use the demo model")
    monkeypatch.chdir(tmp_path)
    if page == CALLS_TOOLS:
        monkeypatch.setattr("tramontane.LLM", weather_model)
    scope: dict[str, Any] = {"__name__": "__example__"}
    try:
        exec(compile(text, "example", "exec"), scope)
        if "out" in scope and page == CALLS_TOOLS:
            assert scope["out"].tool_calls[0].arguments == '{"city": "Rome"}'
            assert scope["run"].finish().text == "The sky over Rome is blue."
    finally:
        for value in scope.values():
            if hasattr(value, "close") and not isinstance(value, type):
                value.close()


def lines() -> Iterator[tuple[str, str]]:
    """(page, command line) of everything that is shown of the program."""
    for path in PAGES:
        text = path.read_text(encoding="utf-8")
        shown = [
            line for match in FENCE.finditer(text) if match[1] in ("", "sh", "bash") for line in match[2].splitlines()
        ]
        for line in [*shown, *INLINE.findall(text)]:
            found = re.match(r"\s*\$?\s*(?:\S*/)?(tramontane .*)", line)
            if found:
                yield name_of(path), re.split(r"\s{2,}|\s#|\s[|>&]|\$\(", found[1])[0].strip()


LINES = sorted(set(lines()))


def flags() -> Iterator[tuple[str, bool]]:
    """(option, whether it is said to be missing) of the right column of the page about another engine's flags."""
    page = (ROOT / "docs/from-mistralrs.md").read_text(encoding="utf-8")
    for row in page.partition("## Flags")[2].partition("\n## ")[0].splitlines():
        if row.startswith("| `"):
            for option, missing in re.findall(
                r"(?<!\S)`(--[a-z][\w-]*|-[a-z]\b)[^`]*`( \(not yet\))?", row.split("|")[2]
            ):
                yield option, bool(missing)


FLAGS = sorted(set(flags()))


def test_there_is_something_to_look_at() -> None:
    assert len(LINES) > 30
    assert len(PYTHON) >= 2
    assert len(FLAGS) > 20


@pytest.mark.parametrize(("option", "missing"), FLAGS)
def test_an_option_of_ours_beside_another_engines_exists(option: str, missing: bool) -> None:
    with click.Context(group, info_name="tramontane", obj=State()) as root:
        commands = [group.get_command(root, name) for name in ("run", "serve", "quantize")]
    parameters = [parameter for command in commands if command for parameter in command.params]
    assert any(option in (*parameter.opts, *parameter.secondary_opts) for parameter in parameters)
    assert not missing


@pytest.mark.parametrize(("page", "line"), [pytest.param(page, line, id=f"{page}: {line}") for page, line in LINES])
def test_a_command_line_is_one_that_the_program_takes(page: str, line: str) -> None:
    words = [word.strip("[]") for word in shlex.split(line)[1:] if word not in ("...", "[OPTIONS]")]
    if not words or words[0].startswith("-"):
        with click.Context(group, obj=State()) as root:
            group.make_parser(root).parse_args(list(words))
        return
    for name in words[0].split("|"):
        with click.Context(group, info_name="tramontane", obj=State()) as root:
            command: click.Command | None = group.get_command(root, name)
            rest = words[1:]
            while isinstance(command, click.Group) and rest:
                command, rest = command.get_command(root, rest[0].split("|")[0]), rest[1:]
            assert command is not None, f"{page}: {line}: there is no command {name}"
            with click.Context(command, parent=root, info_name=name) as context:
                command.make_parser(context).parse_args(list(rest))
