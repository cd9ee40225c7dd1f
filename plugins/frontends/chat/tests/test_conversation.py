# SPDX-License-Identifier: Apache-2.0
"""Conversations and commands, without a terminal."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tramontane.api.results import CompletionDelta
from tramontane.chat.parsing import ChatFormat, Reasoning
from tramontane.errors import ConfigError, ModalityError, RequestError
from tramontane.requests import FinishReason
from tramontane.testing.answering import TEMPLATE, answering_llm
from tramontane.tools import ToolCall
from tramontane_frontend_chat.commands import COMMANDS, Leave, is_command, run_command
from tramontane_frontend_chat.conversation import Conversation
from tramontane_frontend_chat.media import content
from tramontane_frontend_chat.statistics import Meter, summary
from tramontane_frontend_chat.themes import THEMES, theme_named


class _Writer:
    def __init__(self) -> None:
        self.pieces: list[str] = []

    def write(self, text: str) -> None:
        self.pieces.append(text)

    def think(self, text: str) -> None:
        self.pieces.append(f"({text})")

    def call(self, call: ToolCall) -> None:
        self.pieces.append(f"->{call.name}")

    def result(self, text: str) -> None:
        self.pieces.append(f"<-{text}")

    def close(self) -> None:
        self.pieces.append("|")


@pytest.fixture
def talk() -> Iterator[Conversation]:
    with answering_llm(lambda prompt: f"[{prompt}]") as llm:
        yield Conversation(llm)


@pytest.fixture
def base() -> Iterator[Conversation]:
    with answering_llm(lambda prompt: " and so on", chat=False) as llm:
        yield Conversation(llm)


def _said(talk: Conversation, text: str) -> str:
    writer = _Writer()
    completion = talk.answer(text, writer)
    assert "".join(writer.pieces) == completion.text
    assert len(writer.pieces) > 1
    return completion.text


def test_what_was_said_is_sent_again(talk: Conversation) -> None:
    assert _said(talk, "one") == "[<user>one\n<assistant>]"
    talk.system = "Be kind."
    second = _said(talk, "two")
    assert second == "[<system>Be kind.\n<user>one\n<assistant>[<user>one\n<assistant>]\n<user>two\n<assistant>]"
    talk.clear()
    assert _said(talk, "three") == "[<system>Be kind.\n<user>three\n<assistant>]"


def test_a_base_model_continues_each_text_on_its_own(base: Conversation) -> None:
    assert base.raw
    assert _said(base, "Once") == " and so on"
    assert base.messages == []


def test_a_failed_message_is_not_part_of_the_conversation(talk: Conversation) -> None:
    _said(talk, "one")
    with pytest.raises(RequestError, match="the conversation has"):
        talk.answer("x" * 2000, _Writer())
    assert len(talk.messages) == 2


def test_a_stopped_answer_is_kept_as_far_as_it_got() -> None:
    with answering_llm(lambda prompt: "word " * 100, step_s=0.002) as llm:
        talk = Conversation(llm)
        writer = _Writer()

        class Stopping(_Writer):
            def write(self, text: str) -> None:
                super().write(text)
                if len(self.pieces) == 8:
                    streams[0].cancel()

        streams: list = []  # type: ignore[type-arg]
        writer = Stopping()
        completion = talk.answer("one", writer, streams.append)
    assert completion.finish_reason is FinishReason.CANCELED
    assert talk.messages[1]["content"] == completion.text == "".join(writer.pieces)
    assert 8 <= completion.usage.completion_tokens < 100
    assert "stopped by you" in summary(completion, 100)


def test_settings_are_checked_and_shown(talk: Conversation) -> None:
    assert run_command(talk, "/temperature") == "temperature = 1.0"
    assert run_command(talk, "/temperature 0.3") == "temperature = 0.3"
    assert run_command(talk, "/topk 5") == "top_k = 5"
    assert run_command(talk, "/TOPP  0.5 ") == "top_p = 0.5"
    assert run_command(talk, "/seed 7") == "seed = 7"
    assert run_command(talk, "/maxtokens") == "max_tokens = None"
    assert run_command(talk, "/maxtokens 4") == "max_tokens = 4"
    params = talk.params()
    assert (params.temperature, params.top_k, params.top_p, params.seed, params.max_tokens) == (0.3, 5, 0.5, 7, 4)
    assert _said(talk, "one") == "[<us"
    assert run_command(talk, "/maxtokens default") == "max_tokens = None"
    before = dict(talk.sampling)
    for wrong in ("/temperature warm", "/temperature -1", "/temperature nan", "/topk 1.5", "/topp 2", "/seed -1"):
        with pytest.raises(RequestError):
            run_command(talk, wrong)
    assert talk.sampling == before


def test_system_and_clear_begin_anew(talk: Conversation) -> None:
    _said(talk, "one")
    assert "anew" in run_command(talk, "/system Be\nkind.")
    assert talk.system == "Be\nkind."
    assert talk.messages == []
    assert run_command(talk, "/system") == "No system message."
    assert talk.system is None
    _said(talk, "one")
    assert "anew" in run_command(talk, "/clear")
    assert talk.messages == []


def test_a_base_model_has_no_system_message(base: Conversation) -> None:
    assert "no effect" in run_command(base, "/system Be kind.")


def test_help_lists_every_command(talk: Conversation) -> None:
    text = run_command(talk, "/help")
    assert all(name in text for name in COMMANDS)


def test_figures_can_be_shown_and_hidden(talk: Conversation) -> None:
    assert run_command(talk, "/stats") == "Statistics after each answer."
    assert talk.display.figures
    assert run_command(talk, "/stats off") == "No statistics."
    assert not talk.display.figures
    with pytest.raises(RequestError):
        run_command(talk, "/stats maybe")


def test_leaving_and_mistyping(talk: Conversation) -> None:
    with pytest.raises(Leave):
        run_command(talk, "/exit")
    with pytest.raises(RequestError, match="no command /exti") as caught:
        run_command(talk, "/exti")
    assert caught.value.hint == "did you mean /exit?"


@pytest.mark.parametrize(
    ("text", "command"),
    [
        ("/help", True),
        ("/x y", True),
        ("/etc/hosts", False),
        ("/", False),
        ("a /help", False),
        ("//x", False),
        ("/1", False),
    ],
)
def test_what_is_a_command(text: str, command: bool) -> None:
    assert is_command(text) is command


def test_the_line_of_statistics(talk: Conversation) -> None:
    writer = _Writer()
    completion = talk.answer("a" * 60, writer)
    line = summary(talk.answer("a" * 60, writer), 1024)
    assert "cached)" in line
    assert f"/{1024}" in line
    assert f"answer {completion.usage.completion_tokens} tokens" in summary(completion, 1024)
    talk.configure(max_tokens=2)
    assert "token limit" in summary(talk.answer("b", writer), 1024)


def test_themes_are_chosen_by_name(talk: Conversation, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NO_COLOR", raising=False)
    talk.display.styled = True
    assert run_command(talk, "/theme light") == "Themes: dark, [light], plain."
    assert talk.display.theme is THEMES["light"]
    talk.display.styled = False
    assert run_command(talk, "/theme").endswith("This terminal shows plain text whatever the theme.")
    with pytest.raises(ConfigError, match="there is no theme 'pink'") as caught:
        run_command(talk, "/theme pink")
    assert caught.value.hint == "themes: auto, dark, light, plain"
    assert talk.display.theme is THEMES["light"]


@pytest.mark.parametrize(
    ("environ", "name"),
    [
        ({}, "dark"),
        ({"COLORFGBG": "15;0"}, "dark"),
        ({"COLORFGBG": "0;15"}, "light"),
        ({"COLORFGBG": "0;default;7"}, "light"),
        ({"COLORFGBG": "0;15", "NO_COLOR": "1"}, "plain"),
    ],
)
def test_the_theme_suits_the_terminal(environ: dict[str, str], name: str) -> None:
    assert theme_named("auto", environ) is THEMES[name]


def test_the_status_line_tells_rate_context_and_cache_hits(talk: Conversation) -> None:
    assert talk.meter.line("fake", 1024) == "context 0/1024 · fake · /help"
    talk.answer("a" * 60, _Writer())
    usage = talk.answer("b" * 60, _Writer()).usage
    used = usage.prompt_tokens + usage.completion_tokens
    assert usage.cached_tokens > 0
    line = talk.meter.line("fake", 1024)
    assert f" tokens/s · context {used}/1024 ({used / 1024:.0%}) · " in line
    assert f"cache hits {usage.cached_tokens}/{usage.prompt_tokens}" in line
    run_command(talk, "/clear")
    assert "context 0/1024" in talk.meter.line("fake", 1024)


def test_the_status_line_of_a_growing_answer() -> None:
    """The first piece says nothing of the rate: it waited for the prompt."""
    meter = Meter()
    for _ in range(2):
        meter.begin()
        assert meter.growing() == "0 tokens · Ctrl-C stops"
        meter.add(CompletionDelta(token_ids=(1,), at=10.0))
        assert meter.growing() == "1 token · Ctrl-C stops"
        meter.add(CompletionDelta(text="half a character", at=10.2))
        meter.add(CompletionDelta(token_ids=(2, 3), at=10.5))
        assert meter.growing() == "3 tokens · 4.0 tokens/s · Ctrl-C stops"


# --- images and sound -------------------------------------------------------------------------------------------------


@pytest.fixture
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    for name in ("cat.png", "my dog.JPG", "song.mp3", "notes.txt"):
        (tmp_path / name).touch()
    return tmp_path


def _text(text: str) -> dict[str, str]:
    return {"type": "text", "text": text}


@pytest.mark.parametrize(
    ("typed", "parts"),
    [
        ("what is in cat.png?", [_text("what is in"), ("image", "cat.png"), _text("?")]),
        ("'my dog.JPG' and ./song.mp3", [("image", "my dog.JPG"), _text("and"), ("audio", "song.mp3")]),
        ("my\\ dog.JPG", [("image", "my dog.JPG")]),
        ("(cat.png)", [_text("("), ("image", "cat.png"), _text(")")]),
        ('"cat.png", then', [("image", "cat.png"), _text(", then")]),
        ("what is `cat.png`, it's notes.txt or missing.png", None),
        ("it's cat.png, isn't it", [_text("it's"), ("image", "cat.png"), _text(", isn't it")]),
        ("x" * 5000 + ".png", None),
        ("", None),
    ],
)
def test_paths_of_images_and_sound_become_parts(files: Path, typed: str, parts: list | None) -> None:  # type: ignore[type-arg]
    wanted = [
        part if isinstance(part, dict) else {"type": part[0], "path": str(files / part[1])} for part in parts or ()
    ]
    assert content(typed) == (wanted or typed)


def test_a_model_of_text_refuses_an_image_and_says_how_to_send_its_name(
    talk: Conversation, base: Conversation, files: Path
) -> None:
    with pytest.raises(ModalityError) as caught:
        talk.answer("what is in cat.png?", _Writer())
    assert str(caught.value) == (
        "messages[0] holds an image, and answering takes text alone\n"
        "  -> put a path in `backticks` to send its words and not its file"
    )
    assert talk.messages == []
    assert _said(talk, "what is `cat.png`?") == "[<user>what is `cat.png`?\n<assistant>]"
    with pytest.raises(ModalityError, match="continues plain text"):
        base.answer("cat.png", _Writer())


def test_tab_completes_commands_their_words_and_paths(talk: Conversation, files: Path) -> None:
    from prompt_toolkit.completion import CompleteEvent
    from prompt_toolkit.document import Document

    from tramontane_frontend_chat.completion import CommandCompleter

    def offered(typed: str) -> list[str]:
        completer = CommandCompleter(COMMANDS, talk)
        return [one.text for one in completer.get_completions(Document(typed), CompleteEvent())]

    assert offered("/t") == ["/temperature", "/topk", "/topp", "/think", "/tools", "/theme"]
    assert offered("/theme l") == ["light"]
    assert offered("/think o") == ["on", "off"]
    assert offered("/adapter ") == ["none"]
    assert offered("/model ./ca") == ["t.png"]
    assert offered("/system he") == offered("hello") == offered("") == []
    assert offered("look at ./ca") == ["t.png"]
    assert offered(f"{files}/son") == ["g.mp3"]


def test_reasoning_is_shown_apart_and_sent_again_as_such() -> None:
    with answering_llm(lambda prompt: "<think>Hm.</think>Yes.", chat_format=ChatFormat(reasoning=Reasoning())) as llm:
        talk, writer = Conversation(llm), _Writer()
        talk.answer("one", writer)
        pieces = "".join(writer.pieces).replace(")(", "")
        assert pieces == "(Hm.)Yes."
        assert talk.messages[1] == {"role": "assistant", "content": "Yes.", "reasoning_content": "Hm."}


def test_reasoning_can_be_switched() -> None:
    template = TEMPLATE + "{{ enable_thinking }}{{ reasoning_effort }}"
    with answering_llm(lambda prompt: prompt[-4:], template=template) as llm:
        talk = Conversation(llm)
        run_command(talk, "/think on")
        assert _said(talk, "x") == "True"
        run_command(talk, "/think high")
        assert _said(talk, "x") == "high"
        run_command(talk, "/think default")
        assert talk.template == {}
        with pytest.raises(RequestError, match="/think takes on, off"):
            run_command(talk, "/think hard")
