# SPDX-License-Identifier: Apache-2.0
"""What is shown while an answer streams: final blocks, the growing one, nothing twice, no control characters."""

from __future__ import annotations

import io
import re

import pytest
from rich.console import Console

from tramontane.tools import ToolCall
from tramontane_frontend_chat.markdown import MarkdownWriter, PlainWriter, console_for, printable, stable_length
from tramontane_frontend_chat.themes import THEMES

TEXT = """# Title

A paragraph
of two lines.

- one
- two

  still two

1. first

```python
x = 1

# not a heading
```

~~~
``` inside
~~~

The end."""


@pytest.mark.parametrize(
    ("text", "stable"),
    [
        ("", ""),
        ("one", ""),
        ("one\n\n", ""),
        ("one\n\ntwo", "one\n\n"),
        ("one\n \t\ntwo", "one\n \t\n"),
        ("- one\n\n  more", ""),
        ("- one\n\n  more\n\nend", "- one\n\n  more\n\n"),
        ("```\na\n\nb", ""),
        ("```\na\n\nb\n```\n\nend", "```\na\n\nb\n```\n\n"),
        ("````\n```\n\nb\n", ""),
        ("~~~\n```\n\nb", ""),
        ("``` py\na\n\n``` py\n\nb", ""),
    ],
)
def test_a_block_is_final_when_more_text_cannot_change_it(text: str, stable: str) -> None:
    assert text[: stable_length(text)] == stable


def test_final_blocks_never_change_as_text_grows() -> None:
    """What was once final stays a prefix of what is final later."""
    longest = 0
    for end in range(len(TEXT) + 1):
        stable = stable_length(TEXT[:end])
        assert stable >= longest or stable == 0, TEXT[:end]
        assert stable == 0 or stable_length(TEXT[:stable] + "x") in (0, stable)
        longest = max(longest, stable)
    assert longest == TEXT.index("The end.")


def test_control_characters_do_not_reach_the_terminal() -> None:
    assert printable("a\x1b[2Jb\x07\tc\nd\re\x9b31m") == "a[2Jb\tc\ndE31m".replace("E", "e")


def test_markdown_arrives_once_and_rendered() -> None:
    out = io.StringIO()
    writer = MarkdownWriter(
        Console(file=out, width=60, force_terminal=False, color_system=None), THEMES["dark"], lambda: ""
    )
    for letter in TEXT:
        writer.write(letter)
    writer.close()
    shown = out.getvalue()
    for words in ("Title", "A paragraph of two lines.", "still two", "x = 1", "# not a heading", "The end."):
        assert shown.count(words) == 1, shown
    assert "```python" not in shown
    assert "# Title" not in shown


def test_an_answer_longer_than_the_window_is_shown_whole() -> None:
    """The growing block is cropped while it grows, and printed whole in the end."""
    out = io.StringIO()
    console = Console(file=out, width=40, height=5, force_terminal=True, color_system=None)
    writer = MarkdownWriter(console, THEMES["dark"], lambda: "31 tokens")
    writer._drawn = -10.0  # draws at once
    block = "".join(f"- item {number}\n" for number in range(30))
    writer.write(block)
    drawn = out.getvalue()
    assert "item 29" in drawn
    assert "item 3\n" not in drawn
    assert drawn.index("item 29") < drawn.index("31 tokens")
    writer.close()
    final = out.getvalue()[len(drawn) :]
    assert all(f"item {number}" in final for number in range(30))
    assert "31 tokens" not in final


class _Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(("stream", "shown"), [(io.StringIO(), "a\x1b[1mb\n"), (_Terminal(), "a[1mb\n")])
def test_plain_text_is_cleaned_for_terminals_only(stream: io.StringIO, shown: str) -> None:
    writer = PlainWriter(stream)
    writer.write("a\x1b[1m")
    writer.write("b")
    writer.close()
    writer.close()
    assert stream.getvalue() == shown


def test_reasoning_is_dimmed_and_calls_are_lines_of_their_own() -> None:
    out = io.StringIO()
    console = Console(file=out, force_terminal=True, width=60, color_system="standard")
    writer = MarkdownWriter(console, THEMES["dark"], lambda: "")
    writer.think("Let me ")
    writer.think("see\x1b.")
    writer.write("The *answer*.")
    writer.call(ToolCall(id="1", name="now", arguments='{"a": 1}'))
    writer.close()
    text = out.getvalue()
    assert "\x1b[2mLet me \x1b[0m\x1b[2msee.\x1b[0m" in text
    assert text.index("see.") < text.index("answer") < text.index('-> now({"a": 1})')


def test_a_pipe_gets_the_answer_alone() -> None:
    out = io.StringIO()
    writer = PlainWriter(out)
    writer.think("Hm.")
    writer.write("Yes.")
    writer.call(ToolCall(id="1", name="now", arguments="{}"))
    writer.close()
    assert out.getvalue() == "Yes.\n"
    terminal = _Terminal()
    writer = PlainWriter(terminal)
    writer.think("Hm.")
    writer.write("Yes.")
    writer.close()
    assert terminal.getvalue() == "Hm.\n\nYes.\n"


def test_a_theme_colours_what_is_shown_and_the_plain_one_nothing() -> None:
    shown = {}
    for name, theme in THEMES.items():
        terminal = _Terminal()
        writer = MarkdownWriter(console_for(theme, terminal), theme, lambda: "")
        writer.think("Hm.")
        writer.write("`code`\n\n```python\nx = 1\n```\n")
        writer.close()
        shown[name] = re.sub(r"\x1b\[[\d;]*m", "", terminal.getvalue()), terminal.getvalue()
    assert len({plain for plain, _ in shown.values()}) == 1
    assert len({styled for _, styled in shown.values()}) == len(THEMES)
    assert not re.search(r"\x1b\[[\d;]*[34]\d", shown["plain"][1])
