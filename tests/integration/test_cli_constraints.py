# SPDX-License-Identifier: Apache-2.0
"""``tramontane run`` with a form for the answer, over the demo model."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from tramontane.cli.app import run

pytest.importorskip("tramontane_loader_demo", reason="the demo plugin is not installed")


def answer(capsys: pytest.CaptureFixture[str], *options: str) -> str:
    assert run(["run", "demo", "--raw", "-p", "Once", "--seed", "1", "--max-tokens", "60", *options]) == 0
    return capsys.readouterr().out.removesuffix("\n")


def test_forms(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    schema = {"type": "object", "properties": {"a": {"enum": [1, 2]}}, "required": ["a"], "additionalProperties": False}
    assert json.loads(answer(capsys, "--json-schema", json.dumps(schema)))["a"] in (1, 2)
    (tmp_path / "schema.json").write_text('{"type": "boolean"}')
    assert answer(capsys, "--json-schema", str(tmp_path / "schema.json")) in ("true", "false")
    assert re.fullmatch("[0-9]{3}", answer(capsys, "--regex", "[0-9]{3}"))
    assert answer(capsys, "--choice", "left", "--choice", "right") in ("left", "right")
    (tmp_path / "grammar.lark").write_text('start: "<" /[ab]/ ">"')
    assert answer(capsys, "--grammar", str(tmp_path / "grammar.lark")) in ("<a>", "<b>")


def test_what_cannot_be_used_says_why(capsys: pytest.CaptureFixture[str]) -> None:
    for options, words in (
        (("--regex", "a", "--choice", "b"), "give one of"),
        (("--grammar", "/nowhere.lark"), "cannot read the grammar"),
        (("--json-schema", '{"not": {}}'), "not supported: not"),
    ):
        assert run(["run", "demo", "-p", "x", *options]) != 0
        assert words in capsys.readouterr().err
