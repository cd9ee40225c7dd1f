# SPDX-License-Identifier: Apache-2.0
"""What the documentation shows, works: Python blocks run, settings are read, and every command line is one that the
program takes; the long form carries each of them out, page by page, in a folder that holds what the page speaks of."""

from __future__ import annotations

import re
import shlex
import tomllib
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import attrs
import click
import pytest
from documented import FENCE, PAGES, ROOT, blocks, furnish, lines, shell, without_remark

from tramontane import SamplingParams
from tramontane.api import LLM, ModelSettings
from tramontane.chat.parsing import ChatFormat, JsonCalls, Reasoning
from tramontane.cli.app import group
from tramontane.cli.fleet import read_models
from tramontane.cli.state import State
from tramontane.host import Host
from tramontane.plugins.discovery import API_GROUP, GROUP
from tramontane.quantization.topology import read_topology
from tramontane.testing.answering import TEMPLATE, answering_llm

ELSEWHERE = {
    "docs/adding-a-model.md": "tests/integration/test_adding_a_model.py",
    "docs/hooks/": "tests/unit/test_hooks.py",  # from the docstrings of the hooks
    "tests/plugins/scripted/README.md": "tests/plugins/scripted/tests",
}
"""Pages whose Python is run by a test of their own."""
CALLS_TOOLS = "docs/chat.md"
"""A page whose model calls tools: a scripted one stands in for it."""
PYTHON = [
    pytest.param(name, text, id=f"{name}-{i}")
    for i, (name, text) in enumerate(blocks("python"))
    if not name.startswith(tuple(ELSEWHERE))
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
    if page == "docs/adapters.md":
        furnish(tmp_path)
    if page == CALLS_TOOLS:
        monkeypatch.setattr("tramontane.LLM", weather_model)
    scope: dict[str, Any] = {"__name__": "__example__"}
    try:
        exec(compile(text, "example", "exec"), scope)
        if page == "CONTRIBUTING.md":
            assert next(scope["tramontane_architectures"]()).classes == ("FooForCausalLM",)
        if "out" in scope and page == CALLS_TOOLS:
            assert scope["out"].tool_calls[0].arguments == '{"city": "Rome"}'
            assert scope["run"].finish().text == "The sky over Rome is blue."
    finally:
        for value in scope.values():
            if hasattr(value, "close") and not isinstance(value, type):
                value.close()


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
        commands = [group.get_command(root, name) for name in ("run", "serve", "quantize", "bench", "tune")]
    parameters = [parameter for command in commands if command for parameter in command.params]
    assert any(option in (*parameter.opts, *parameter.secondary_opts) for parameter in parameters)
    assert not missing


def test_calls_of_ours_beside_another_engines_exist() -> None:
    page = (ROOT / "docs/from-mistralrs.md").read_text(encoding="utf-8").partition("## Python")[2].partition("\n## ")[0]
    ours = "\n".join(row.split("|")[2] for row in page.splitlines() if row.startswith("| ") and row.count("|") == 3)
    takes = {"LLM": ModelSettings.__annotations__, "SamplingParams": attrs.fields_dict(SamplingParams)}
    asked = [(kind, key) for kind, said in re.findall(r"\b(LLM|SamplingParams)\(([^`]*)\)", ours)
             for key in re.findall(r"\b([a-z]\w*)=", said)]  # fmt: skip
    assert len(asked) > 20
    assert [one for one in asked if one[1] not in takes[one[0]]] == []
    assert [name for name in re.findall(r"\bllm\.(\w+)", ours) if not hasattr(LLM, name)] == []
    assert [name for name in re.findall(r"\bHost\.(\w+)", ours) if not hasattr(Host, name)] == []


def test_every_name_of_the_other_engine_has_a_row() -> None:
    """Flags, kinds of models, arguments and calls, as far as they are written down beside the checkout."""
    facts = ROOT.parent / "shared/reference/features.md"
    if not facts.exists():
        pytest.skip(f"needs {facts}")
    text = facts.read_text(encoding="utf-8")
    commands = text.partition("## 1.1 ")[2].partition("\n# 2. ")[0]
    python = text.partition("## 3.1 ")[2].partition("## 3.4 ")[0]
    kinds = python.partition("## 3.2 ")[2].partition("## 3.3 ")[0]
    wanted = {f"Which.{name}" for name in re.findall(r"`([A-Z]\w+)`?\(", kinds)}
    wanted |= set(re.findall(r"(?<![\w-])--[a-z][a-z0-9-]*[a-z0-9](?![\w-])", commands))
    wanted |= set(re.findall(r"\b([a-z]+(?:_[a-z]+)+)\b", re.sub(r"`\w*WebSearch[^`]*`", "", python)))
    wanted -= {"no_bert_model"}  # "that does not exist", as is said there
    assert len(wanted) > 200
    page = (ROOT / "docs/from-mistralrs.md").read_text(encoding="utf-8")
    assert sorted(name for name in wanted if not re.search(rf"(?<![\w-]){re.escape(name)}(?![\w-])", page)) == []


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


# --- what else is typed -----------------------------------------------------------------------------------------------


def a_task(line: str) -> None:
    """``make run``: a task of dev.py."""
    assert re.search(rf'"{line.split()[1]}": ', (ROOT / "dev.py").read_text(encoding="utf-8")), line


@cache
def extras_of_distributions() -> dict[str, set[str]]:
    files = (ROOT / "pyproject.toml", *ROOT.glob("plugins/*/*/pyproject.toml"))
    projects = [tomllib.loads(path.read_text())["project"] for path in files]
    return {one["name"]: set(one.get("optional-dependencies", ())) for one in projects}


def an_installation(line: str) -> None:
    """``pip install``: distributions of this repository, and extras that they have."""
    extras = extras_of_distributions()
    for word in shlex.split(line)[2:]:
        name, _, extra = word.partition("[")
        if word not in ("-e", "."):
            assert name in extras, f"there is no distribution {name}"
            assert not extra or extra.rstrip("]") in extras[name], f"{name} has no extra {extra}"


def a_module(line: str) -> None:
    """``python -m``: a module that is there."""
    module = line.split(" -m ")[1].split()[0]
    places = (ROOT / "core", ROOT / "plugins/backends/cuda", ROOT / "plugins/loaders/demo")
    at = [place / module.replace(".", "/") for place in places]
    assert any(one.with_suffix(".py").exists() or (one / "__main__.py").exists() for one in at), f"no module {module}"


def a_container(line: str) -> None:
    """``docker``: a file that is there; ``tests/integration/test_deployment.py`` runs its steps."""
    for path in re.findall(r"-f (\S+)", line):
        assert (ROOT / path).exists()


def as_it_is(line: str) -> None:
    """Nothing to look up."""


TYPED = {
    r"git clone ": as_it_is,
    r"make \w": a_task,
    r"pip install ": an_installation,
    r"(TRITON_INTERPRET=0 )?pytest (--pyargs )?\S+": as_it_is,  # of a card, and of the page that has a test of its own
    r"(python|torchrun --nproc-per-node 2) -m ": a_module,
    r"docker ": a_container,
    r"cp OUT/": as_it_is,
    r"ANTHROPIC_BASE_URL=": as_it_is,  # plugins/frontends/anthropic/tests runs the vendor's client like that
    r"curl ": as_it_is,  # sent by the long form
    r"(\S*/)?tramontane ": as_it_is,  # looked at above
}


@pytest.mark.parametrize(
    ("page", "line"), [pytest.param(*one, id=f"{one[0]}: {one[1]}") for one in sorted(set(shell()))]
)
def test_every_line_of_every_block_is_known(page: str, line: str) -> None:
    found = [check for pattern, check in TYPED.items() if re.match(pattern, line)]
    assert len(found) == 1, f"{page} shows a line that no test looks at: {line}"
    found[0](without_remark(line))


def test_no_block_has_another_language() -> None:
    found = {match[1] for path in PAGES for match in FENCE.finditer(path.read_text(encoding="utf-8"))}
    assert found <= {"", "sh", "bash", "python", "toml", "yaml"}
    assert {page for page, _ in blocks("yaml")} == {"docs/quantization.md"}, "others are no topologies"
    for place in ELSEWHERE.values():
        assert (ROOT / place).exists()


def test_settings_are_read(tmp_path: Path) -> None:
    for page, text in blocks("toml"):
        content = tomllib.loads(text)
        if "models" in content:
            small, large = read_models(tmp_path / page, content["models"])
            assert (small.aliases, large.preload) == (("gpt-4o-mini",), True)
        else:
            assert content["project"]["entry-points"].keys() <= {GROUP, API_GROUP}, page
    for _, text in blocks("yaml"):
        (tmp_path / "topology.yaml").write_text(text)
        read_topology(tmp_path / "topology.yaml")
