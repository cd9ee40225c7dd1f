# SPDX-License-Identifier: Apache-2.0
"""Tools and attached files in the terminal chat, without a terminal."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tramontane.chat.parsing import ChatFormat, JsonCalls
from tramontane.errors import ModalityError, RequestError
from tramontane.testing.answering import answering_llm
from tramontane.tools import Tool, ToolCall
from tramontane_frontend_chat.commands import run_command
from tramontane_frontend_chat.conversation import Conversation
from tramontane_frontend_chat.toolbox import Toolbox

FORM = ChatFormat(calls=(JsonCalls(opens=("<call>",), closes=("</call>",)),))
TEMPLATE = (
    "{% for tool in tools or [] %}[{{ tool.function.name }}]{% endfor %}"
    "{% for m in messages %}<{{ m.role }}>{{ m.content }}{{ m.tool_calls | length if m.tool_calls }}\n{% endfor %}"
    "<assistant>"
)
CALL = '<call>{"name": "double", "arguments": {"number": 21}}</call>'
FUNCTIONS = """
import json
from pathlib import Path

def double(number: int) -> int:
    \"\"\"Twice a number.\"\"\"
    return 2 * number

def _hidden():
    pass
"""
DESCRIBED = [{"name": "double", "parameters": {"type": "object", "properties": {"number": {"type": "integer"}}}}]


def says(prompt: str) -> str:
    """Calls where it may and has no result yet; then it repeats the result."""
    if "<tool>" in prompt:
        return f"It is {prompt.rpartition('<tool>')[2].partition(chr(10))[0]}"
    return CALL if "[double]" in prompt else f"[{prompt}]"


class Writer:
    def __init__(self) -> None:
        self.lines: list[str] = []

    def write(self, text: str) -> None:
        self.lines.append(text)

    think = write

    def call(self, call: ToolCall) -> None:
        self.lines.append(f"->{call.name}({call.arguments})")

    def result(self, text: str) -> None:
        self.lines.append(f"<-{text}")

    def close(self) -> None:
        self.lines.append("|")


@pytest.fixture
def talk() -> Iterator[Conversation]:
    with answering_llm(says, template=TEMPLATE, chat_format=FORM) as llm:
        yield Conversation(llm)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    (tmp_path / "functions.py").write_text(FUNCTIONS)
    (tmp_path / "functions.json").write_text(json.dumps(DESCRIBED))
    return tmp_path / "functions.py"


def answering(*answers: str) -> tuple[Callable[[str], str], list[str]]:
    """Somebody who gives these answers and then leaves; and what they were asked."""
    asked: list[str] = []
    left = list(answers)

    def ask(question: str) -> str:
        asked.append(question)
        if not left:
            raise EOFError
        return left.pop(0)

    return ask, asked


def test_a_function_runs_when_it_is_allowed_and_the_model_goes_on(talk: Conversation, file: Path) -> None:
    assert run_command(talk, f"/tools {file}") == "Tools: double."
    talk.toolbox.ask, asked = answering("y", "no", "always")
    writer = Writer()
    assert talk.answer("twice 21?", writer).text == "It is 42"
    assert asked == ['Run double({"number": 21})? [y]es, [n]o, [a]lways: ']
    assert [line for line in writer.lines if line[0] in "-<"] == ['->double({"number": 21})', "<-42"]
    assert [message["role"] for message in talk.messages] == ["user", "assistant", "tool", "assistant"]
    for told in ("Error: the user did not allow this call.", "42", "42", "42"):
        run_command(talk, "/clear")
        assert talk.answer("twice 21?", Writer()).text == f"It is {told}"
    assert len(asked) == 3, "always is not asked again"
    assert run_command(talk, "/tools none") == "Tools: none."
    assert talk.answer("twice 21?", Writer()).text.startswith("It is 42"), "what was said stays said"


def test_nothing_runs_where_nobody_can_be_asked(talk: Conversation, file: Path) -> None:
    run_command(talk, f"/tools {file}")
    assert talk.answer("twice 21?", Writer()).text == "It is Error: the user did not allow this call."


def test_a_question_does_not_steer_the_terminal() -> None:
    ask, asked = answering("n")
    box = Toolbox(ask=ask, tools={"f": Tool(name="f", function=str)})
    box.run(ToolCall(id="1", name="f", arguments='{"a": "\x9b2J"}' + " " * 500))
    assert asked[0].startswith('Run f({"a": "2J"}  ')
    assert asked[0].endswith("  ...)? [y]es, [n]o, [a]lways: ")
    assert len(asked[0]) < 450


def test_the_person_plays_a_function_that_is_only_described(talk: Conversation, file: Path) -> None:
    run_command(talk, f"/tools {file.with_suffix('.json')}")
    talk.toolbox.ask, asked = answering("forty-two")
    assert talk.answer("twice 21?", Writer()).text == "It is forty-two"
    assert asked == ["What does double return? "]
    run_command(talk, "/clear")
    assert talk.answer("twice 21?", Writer()).text == "It is Error: RuntimeError: nobody was there to answer"


def test_a_model_that_always_calls_is_stopped(file: Path) -> None:
    with answering_llm(lambda prompt: CALL, template=TEMPLATE, chat_format=FORM) as llm:
        talk = Conversation(llm)
        run_command(talk, f"/tools {file}")
        talk.toolbox.ask, asked = answering("a")
        assert talk.answer("twice 21?", Writer()).tool_calls
    assert len(asked) == 1
    assert len(talk.messages) == 1 + 2 * 8 + 1


def test_tools_of_a_plugin_are_had_by_its_name_and_let_go() -> None:
    class Clock:
        closed = False

        def tools(self) -> list[Tool]:
            return [Tool(name="now", function=lambda: "noon")]

        def close(self) -> None:
            self.closed = True

    clock = Clock()
    box = Toolbox({"clock": lambda: clock}, ask=lambda question: "yes")
    assert box.add("clock") == ["now"]
    assert box.run(ToolCall(id="1", name="now", arguments="{}")) == "noon"
    with pytest.raises(RequestError, match="already"):
        box.add("clock")
    with pytest.raises(RequestError, match="no source of tools") as caught:
        box.add("watch")
    assert "(clock)" in (caught.value.hint or "")
    box.clear()
    assert (clock.closed, box.tools) == (True, {})


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [("missing.py", None, "there is no file"), ("bad.py", "1/0", "ZeroDivisionError"),
     ("empty.py", "x = 1", "no tools"), ("odd.py", "def f(*a): pass", "cannot be given by name"),
     ("missing.json", None, "cannot be read"), ("bad.json", "{", "cannot be read"),
     ("odd.json", '[{"name": ""}]', "name")],
)  # fmt: skip
def test_files_without_usable_tools(
    talk: Conversation, tmp_path: Path, name: str, content: str | None, says: str
) -> None:
    if content is not None:
        (tmp_path / name).write_text(content)
    with pytest.raises(RequestError, match=says):
        run_command(talk, f"/tools {tmp_path / name}")
    assert talk.toolbox.tools == {}


def test_a_base_model_calls_nothing(file: Path) -> None:
    with answering_llm(lambda prompt: "so", chat=False) as llm, pytest.raises(RequestError, match="calls no tools"):
        run_command(Conversation(llm), f"/tools {file}")


def test_attached_files_go_with_the_next_message_alone(talk: Conversation, tmp_path: Path) -> None:
    (tmp_path / "a note.txt").write_text("The hat is red.\n")
    (tmp_path / "list.md").write_text("- tea")
    told = run_command(talk, f'/attach "{tmp_path}/a note.txt" {tmp_path}/list.md')
    assert told == run_command(talk, "/attach") == "Attached to the next message: a note.txt, list.md."
    said = talk.answer("What is red?", Writer()).text
    assert said == "[<user>File 'a note.txt':\nThe hat is red.\n\nFile 'list.md':\n- tea\nWhat is red?\n<assistant>]"
    assert run_command(talk, "/attach") == "Attached to the next message: nothing."
    run_command(talk, f"/attach {tmp_path}/list.md")
    assert run_command(talk, "/attach none") == "Attached to the next message: nothing."


def test_what_cannot_be_attached_is_said(talk: Conversation, tmp_path: Path) -> None:
    (tmp_path / "noise.bin").write_bytes(b"\xff\0")
    (tmp_path / "long.txt").write_bytes(b"x" * (2 * 2**20 + 1))
    (tmp_path / "cat.png").touch()
    wrong = {
        "noise.bin": "neither a text",
        "long.txt": "larger than 2 MiB",
        "none.txt": "No such file",
        ".": "directory",
    }
    for name, says in wrong.items():
        with pytest.raises(RequestError, match=says):
            run_command(talk, f"/attach {tmp_path}/{name}")
    with pytest.raises(RequestError, match="no list of paths"):
        run_command(talk, '/attach "open')
    run_command(talk, f"/attach {tmp_path}/cat.png")
    with pytest.raises(ModalityError):
        talk.answer("What is it?", Writer())
    assert len(talk.attached) == 1, "it can be taken back"
