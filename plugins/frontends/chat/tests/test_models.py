# SPDX-License-Identifier: Apache-2.0
"""``/model``: what it lists, how it lets another model answer, and what is left where that fails."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest

from tramontane.api.service import Service
from tramontane.errors import HubError, RequestError, TramontaneError
from tramontane.host import Host, ModelState
from tramontane.progress import silent
from tramontane.testing.answering import answering_llm, answering_service
from tramontane_frontend_chat.commands import COMMANDS, run_command
from tramontane_frontend_chat.conversation import Conversation
from tramontane_frontend_chat.models import Models


class _Writer:
    def write(self, text: str) -> None: ...

    def think(self, text: str) -> None: ...

    def call(self, call: object) -> None: ...

    def close(self) -> None: ...


@pytest.fixture
def loaded(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, dict[str, Any]]]:
    """Loading makes a model that answers with its name and what it was asked; what was loaded is noted."""
    found: list[tuple[str, dict[str, Any]]] = []

    def load(
        reference: str, settings: Mapping[str, Any], plugins: object, progress: object, name: str | None = None
    ) -> Service:
        found.append((reference, dict(settings)))
        if reference == "broken":
            raise TramontaneError("it is broken")
        if reference == "slow":
            raise KeyboardInterrupt
        return answering_service(lambda prompt: f"{name}: {prompt}", chat=reference != "base", name=name or reference)

    monkeypatch.setattr(Service, "load", load)
    return found


@pytest.fixture
def talk(loaded: list[tuple[str, dict[str, Any]]]) -> Iterator[Conversation]:
    host = Host()
    host.add("small", "path/to/small", quant="q8_0")
    for name in ("large", "base", "broken", "slow"):
        host.add(name)
    host.alias("big", "large")
    models = Models(host, {"threads": 2}, lambda: nullcontext(silent))
    yield Conversation(models.load(), models=models)
    host.close()


def states(talk: Conversation) -> dict[str, ModelState]:
    assert talk.models is not None
    return {card.name: card.state for card in talk.models.cards()}


def test_it_lists_the_models_and_marks_the_one_that_answers(talk: Conversation) -> None:
    first, second, *_, last = run_command(talk, "/model").split("\n")
    assert first == "* small   ready · context 1024 · path/to/small"
    assert second == "  large   configured · also called big"
    assert last == "/model NAME, a folder, a file or a hub id lets that one answer."
    assert list(COMMANDS["/model"].words(talk)) == ["small", "large", "big", "base", "broken", "slow"]


def test_another_model_answers_and_knows_what_was_said(talk: Conversation) -> None:
    talk.answer("one", _Writer())
    talk.configure(temperature=0.5)
    talk.adapter = "of small"
    assert run_command(talk, "/model big") == "large answers from here on; what was said stays."
    assert states(talk)["small"] is ModelState.CONFIGURED, "its memory is given back"
    assert states(talk)["large"] is ModelState.READY
    assert (talk.adapter, talk.params().temperature, talk.meter.usage) == (None, 0.5, None)
    said = talk.answer("two", _Writer()).text
    assert said == "large: <user>one\n<assistant>small: <user>one\n<assistant>\n<user>two\n<assistant>"
    assert run_command(talk, "/model large") == "large answers already."
    assert "continues each message on its own" in run_command(talk, "/model base")


@pytest.mark.parametrize(("name", "message"), [("broken", "it is broken"), ("slow", "loading slow was stopped")])
def test_where_it_cannot_be_loaded_the_one_before_answers_on(talk: Conversation, name: str, message: str) -> None:
    with pytest.raises(TramontaneError, match=message):
        run_command(talk, f"/model {name}")
    assert talk.llm.name == "small"
    assert talk.answer("one", _Writer()).text.startswith("small: ")


def test_a_model_that_no_file_named_is_fetched_first(
    talk: Conversation, loaded: list[tuple[str, dict[str, Any]]], tmp_path: Path
) -> None:
    running = talk.llm
    with pytest.raises(HubError, match="there is no file or directory"):
        run_command(talk, f"/model {tmp_path}/nowhere")
    assert talk.llm.name == running.name
    assert len(loaded) == 1, "nothing was let go"
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "config.json").write_text("{}")
    assert run_command(talk, f"/model {tmp_path}/folder").startswith(f"{tmp_path}/folder answers from here on")
    assert loaded[1:] == [(f"{tmp_path}/folder", {"threads": 2})]


def test_one_model_alone() -> None:
    with answering_llm(lambda prompt: prompt, name="lonely") as llm:
        talk = Conversation(llm)
        assert run_command(talk, "/model").startswith("* lonely\n")
        with pytest.raises(RequestError, match="one model alone"):
            run_command(talk, "/model other")
