# SPDX-License-Identifier: Apache-2.0
"""Where a chat template comes from: a checkpoint's files, several of them by name, what a user gives instead."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tramontane.chat import ChatTemplate, TemplateError, TemplateSource, find_template
from tramontane.checkpoint import Files


def files(**contents: Any) -> Files:
    def bytes_of(content: Any) -> bytes:
        return (content if isinstance(content, str) else json.dumps(content)).encode()

    return Files({name: (lambda c=content: bytes_of(c)) for name, content in contents.items()})


def test_sources_in_order(tmp_path: Path) -> None:
    everything = {
        "chat_template.jinja": "jinja",
        "tokenizer_config.json": {"chat_template": "tokenizer"},
        "chat_template.json": {"chat_template": "json"},
        "processor_config.json": {"chat_template": "processor"},
    }
    for expected in ("jinja", "tokenizer", "json", "processor"):
        source = find_template(files(**everything))
        assert source is not None
        assert source.main == expected
        assert source.origin == next(iter(everything))
        del everything[next(iter(everything))]
    assert find_template(files(**everything)) is None
    (tmp_path / "mine.jinja").write_text("from a file")
    (tmp_path / "mine.json").write_text(json.dumps({"chat_template": "from json", "bos_token": "<b>"}))
    for override, expected in (
        ("{{ 'inline' }}", "inline"),
        (tmp_path / "mine.jinja", "from a file"),
        (str(tmp_path / "mine.jinja"), "from a file"),
        (tmp_path / "mine.json", "from json"),
    ):
        source = find_template(files(**{"chat_template.jinja": "no"}), override)
        assert source is not None
        assert ChatTemplate(source).render([{"role": "user", "content": "x"}]).text == expected
    assert source.names == {"bos_token": "<b>"}


@pytest.mark.parametrize(
    ("content", "message"),
    [(None, "cannot read"), ("{", "not valid JSON"), ("{}", "has no chat_template"), ("[]", "has no")],
)
def test_overrides_that_cannot_be_read(content: str | None, message: str, tmp_path: Path) -> None:
    if content is not None:
        (tmp_path / "t.json").write_text(content)
    with pytest.raises(TemplateError, match=message):
        find_template(Files(), tmp_path / "t.json")


def test_named_templates() -> None:
    listed = [{"name": "default", "template": "plain"}, {"name": "tool_use", "template": "tools"}, {"name": "x"}]
    source = find_template(files(**{"tokenizer_config.json": {"chat_template": listed}}))
    assert source is not None
    assert (source.pick(tools=False), source.pick(tools=True)) == ("plain", "tools")
    assert ChatTemplate(source).render([{"role": "user"}], tools=[{"name": "get_weather"}]).text == "tools"
    assert ChatTemplate(source).supports_tools
    with pytest.raises(TemplateError, match="no chat template named 'rag', only default, tool_use"):
        source.pick(tools=False, name="rag")
    with pytest.raises(TemplateError, match="named 'default'"):
        TemplateSource({"a": "1", "b": "2"}, "somewhere").pick(tools=False)
    assert TemplateSource({"a": "1"}, "somewhere").pick(tools=True) == "1"
    more = files(**{"chat_template.jinja": "d", "additional_chat_templates/tool_use.jinja": "t"})
    found = find_template(more)
    assert found is not None
    assert dict(found.templates) == {"default": "d", "tool_use": "t"}
