# SPDX-License-Identifier: Apache-2.0
"""``tramontane run`` over a model whose answers are written here: prompts, output, JSON, the way to a chat."""

from __future__ import annotations

import io
import json
import sys
from collections.abc import Mapping
from typing import Any

import pytest
from attrs import evolve

from tramontane.api.service import Service
from tramontane.cli.app import run
from tramontane.errors import ModelNotFoundError
from tramontane.host import FrontendOptions, Host
from tramontane.testing.answering import BOS, EOS, TEMPLATE, answering_service


class _Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, dict[str, Any]]]:
    """Loading makes an answering model; what was asked for is noted. ``base`` has no chat template."""
    found: list[tuple[str, dict[str, Any]]] = []

    def load(
        reference: str, settings: Mapping[str, Any], plugins: Any, progress: object, name: str | None = None
    ) -> Service:
        found.append((reference, dict(settings)))
        if reference == "missing":
            raise ModelNotFoundError("no such model", hint="look again")
        template = TEMPLATE + ("{{ enable_thinking }}{{ reasoning_effort }}" if reference == "thinker" else "")
        return answering_service(
            lambda prompt: f"[{prompt}\x1b]", chat=reference != "base", name=reference, template=template
        )

    monkeypatch.setattr(Service, "load", load)
    monkeypatch.setattr(sys, "stdin", io.StringIO(""))
    return found


Asked = list[tuple[str, dict[str, Any]]]
Captured = pytest.CaptureFixture[str]


def test_one_answer(asked: Asked, capsys: Captured) -> None:
    assert run(["run", "-m", "chatty", "-p", "hi", "--max-num-seqs", "3"]) == 0
    out, err = capsys.readouterr()
    assert out == "[<user>hi\n<assistant>\x1b]\n"
    assert err == ""
    assert asked == [("chatty", {"max_num_seqs": 3, "prefix_cache": True, "allow_pickle": False})]


def test_the_model_may_be_an_argument(asked: Asked, capsys: Captured, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRAMONTANE_MODEL", "elsewhere")
    assert run(["run", "chatty", "-p", "hi"]) == 0
    assert run(["run", "-p", "hi"]) == 0
    assert [reference for reference, _ in asked] == ["chatty", "elsewhere"]
    assert run(["run", "one", "-m", "two", "-p", "hi"]) == 2
    assert "two models were named" in capsys.readouterr().err


@pytest.mark.parametrize("arguments", [[], ["-m", "demo"], ["demo"]])
def test_the_demo_model_says_what_it_is(asked: Asked, capsys: Captured, arguments: list[str]) -> None:
    assert run(["run", *arguments, "-p", "hi"]) == 0
    assert asked[0][0] == "demo"
    assert "embedded demo model" in capsys.readouterr().err
    assert run(["run", *arguments, "-p", "hi", "-q"]) == 0
    assert capsys.readouterr().err == ""


def test_a_piped_prompt(asked: Asked, capsys: Captured, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO("from\na pipe\n"))
    assert run(["run", "chatty"]) == 0
    assert capsys.readouterr().out == "[<user>from\na pipe\n<assistant>\x1b]\n"
    monkeypatch.setattr(sys, "stdin", _Terminal("typed\n"))
    assert run(["run", "chatty", "-p", "-"]) == 0
    assert capsys.readouterr().out.startswith("[<user>typed\n")


def test_nothing_to_answer(asked: Asked, capsys: Captured, monkeypatch: pytest.MonkeyPatch) -> None:
    assert run(["run", "chatty"]) == 1
    assert "standard input is empty" in capsys.readouterr().err
    monkeypatch.setattr(sys, "stdin", None)
    assert run(["run", "chatty"]) == 1
    assert "standard input is empty" in capsys.readouterr().err
    monkeypatch.setattr(sys, "stdin", _Terminal())
    assert run(["run", "chatty", "--json"]) == 2
    assert "--json prints one answer" in capsys.readouterr().err
    assert asked == []


def test_the_object_of_json(asked: Asked, capsys: Captured) -> None:
    assert run(["run", "base", "-p", "hi", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    usage = found.pop("usage")
    assert found == {
        "text": "[hi\x1b]",
        "token_ids": [*b"[hi\x1b]", EOS],
        "prompt_token_ids": [BOS, *b"hi"],
        "finish_reason": "stop",
    }
    assert list(usage) == ["prompt_tokens", "completion_tokens", "ttft_s", "prompt_tps", "decode_tps"]
    assert usage["prompt_tokens"] == 3
    assert usage["completion_tokens"] == 6
    assert usage["ttft_s"] > 0


def test_a_base_model_continues_and_says_so(asked: Asked, capsys: Captured) -> None:
    assert run(["run", "base", "-p", "hi", "--system", "Be kind."]) == 0
    out, err = capsys.readouterr()
    assert out == "[hi\x1b]\n"
    assert err == "base has no chat template: it continues the text as it is; the system message is left out.\n"


def test_raw_leaves_the_template_out(asked: Asked, capsys: Captured) -> None:
    assert run(["run", "chatty", "-p", "hi", "--raw"]) == 0
    assert capsys.readouterr() == ("[hi\x1b]\n", "")


def test_generation_options_reach_the_sampler(asked: Asked, capsys: Captured) -> None:
    assert run(["run", "chatty", "-p", "hi", "--system", "Be kind.", "--max-tokens", "20", "--stop", "kind"]) == 0
    assert capsys.readouterr().out == "[<system>Be \n"
    assert run(["run", "chatty", "-p", "hi", "--max-tokens", "2", "-v"]) == 0
    out, err = capsys.readouterr()
    assert out == "[<\n"
    assert "2 new tokens" in err
    assert "ended by length" in err
    assert run(["run", "chatty", "-p", "hi", "--top-p", "7"]) == 1
    assert "top_p must be between 0 and 1" in capsys.readouterr().err


def test_how_much_is_reasoned_reaches_the_template(asked: Asked, capsys: Captured) -> None:
    for flags, said in (
        ([], ""),
        (["--thinking"], "True"),
        (["--no-thinking", "--reasoning-effort", "low"], "Falselow"),
    ):
        assert run(["run", "thinker", "-p", "hi", *flags]) == 0
        assert capsys.readouterr().out == f"[<user>hi\n<assistant>{said}\x1b]\n"


def test_a_terminal_gets_no_control_characters(asked: Asked, monkeypatch: pytest.MonkeyPatch) -> None:
    shown = _Terminal()
    monkeypatch.setattr(sys, "stdout", shown)
    assert run(["run", "base", "-p", "hi"]) == 0
    assert shown.getvalue() == "[hi]\n"


def test_a_model_that_is_not_there(asked: Asked, capsys: Captured) -> None:
    assert run(["run", "missing", "-p", "hi"]) == 1
    assert capsys.readouterr().err == "error: no such model\n  -> look again\n"


def test_a_terminal_without_a_prompt_opens_the_chat(asked: Asked, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[tuple[str, str | None, FrontendOptions]] = []

    def chat(host: Host, options: FrontendOptions) -> None:
        card = host.models()[0]
        seen.append((card.name, card.state, options))

    monkeypatch.setattr("tramontane_frontend_chat.app.run", chat)
    monkeypatch.setattr(sys, "stdin", _Terminal())
    chosen = ["--temperature", "0.5", "--system", "Be kind.", "--top-k", "3", "--theme", "light", "-v"]
    chosen += ["--threads", "2", "--max-model-len", "64", "--no-thinking"]
    assert run(["run", "chatty", *chosen]) == 0
    sampling = {"temperature": 0.5, "top_k": 3}
    settings = {"prefix_cache": True, "allow_pickle": False, "threads": 2}  # for models that are named in the chat
    options = FrontendOptions(system="Be kind.", sampling=sampling, verbosity=1, theme="light", settings=settings)
    options = evolve(options, template={"enable_thinking": False})
    assert seen == [("chatty", "ready", options)]
    monkeypatch.setattr(sys, "stdin", io.StringIO("piped"))
    assert run(["run", "chatty", "--interactive"]) == 0
    assert len(seen) == 2
    assert run(["run", "chatty", "--interactive", "-p", "x"]) == 2


def test_without_the_chat_plugin_the_line_to_type_is_given(
    asked: Asked, capsys: Captured, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TRAMONTANE_PLUGINS_OFF", "tramontane-frontend-chat")
    monkeypatch.setattr("tramontane.plugins._installed", None)
    monkeypatch.setattr(sys, "stdin", _Terminal())
    assert run(["run", "chatty"]) == 1
    err = capsys.readouterr().err
    assert "there is no frontend 'chat'" in err
    assert "TRAMONTANE_PLUGINS_OFF" in err or "pip install tramontane-frontend-chat" in err
    assert asked == []
