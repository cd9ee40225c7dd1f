# SPDX-License-Identifier: Apache-2.0
"""Several tokens in one piece tell what each alone would have told, in the same order."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from tramontane.api.answers import MOST_PIECES, Answers
from tramontane.api.choice import ChoiceOutput
from tramontane.api.collect import RequestOutput
from tramontane.api.results import CompletionDelta
from tramontane.chat.parsing import Parsed
from tramontane.requests import Delta, EngineRequest, FinishReason
from tramontane.tools.calls import ToolCallDelta, joined

CALL = Parsed(calls=(ToolCallDelta(index=0, id="c", name="f"),))
ARGUMENTS = [Parsed(calls=(ToolCallDelta(index=0, arguments=text),)) for text in ('{"a"', ":1}")]
SHOWN = [Parsed(reasoning="hm"), Parsed(reasoning=", so"), Parsed("Well "), CALL, *ARGUMENTS, Parsed("done"), Parsed()]


class Letters:
    """A text side: token ``i`` shows the letter ``i``."""

    stopped = False

    def feed(self, token: int) -> str:
        return chr(token)

    def finish(self) -> str:
        return ""


class Scripted:
    """A parser that finds in token ``i`` what is at ``i`` in the script."""

    closed = False
    calls = 1

    def push(self, text: str) -> Parsed:
        return SHOWN[ord(text)]

    def finish(self) -> Parsed:
        return Parsed()


def output() -> RequestOutput:
    request = EngineRequest(id="a", prompt_token_ids=(1,))
    text: Any = Letters()
    parser: Any = Scripted()
    return RequestOutput(request, 0, 0.0, [ChoiceOutput(request, 0, text, parser)])


def step(*tokens: int, reason: FinishReason | None = None) -> Delta:
    return Delta(request_id="a", token_ids=tokens, finish_reason=reason)


def order(pieces: Sequence[CompletionDelta]) -> list[tuple[str, str]]:
    """What clients see, in order, whatever it is cut into."""
    seen: list[tuple[str, str]] = []
    for piece in pieces:
        calls = "".join(f"{one.name or ''}{one.arguments}" for one in piece.tool_calls)
        for kind, found in (("reasoning", piece.reasoning), ("text", piece.text), ("call", calls)):
            if found and seen and seen[-1][0] == kind:
                seen[-1] = (kind, seen[-1][1] + found)
            elif found:
                seen.append((kind, found))
    return seen


RIGHT = [("reasoning", "hm, so"), ("text", "Well "), ("call", 'f{"a":1}'), ("text", "done")]


@pytest.mark.parametrize("size", [1, 2, 3, 5, len(SHOWN)])
def test_tokens_together_tell_what_they_tell_alone(size: int) -> None:
    whole, pieces = output(), []
    for start in range(0, len(SHOWN), size):
        ids = range(start, min(start + size, len(SHOWN)))
        pieces += whole.feed(step(*ids, reason=FinishReason.STOP if ids[-1] == len(SHOWN) - 1 else None), 1.0)
    assert order(pieces) == RIGHT
    assert [token for piece in pieces for token in piece.token_ids] == list(range(len(SHOWN)))
    assert sum(piece.reasoning_tokens for piece in pieces) == 2
    assert [piece.finish_reason for piece in pieces] == [None] * (len(pieces) - 1) + [FinishReason.TOOL_CALLS]
    assert pieces[-1].completion is not None
    assert pieces[-1].completion.text == "Well done"
    for piece in pieces:
        names = [one.index for one in piece.tool_calls]
        assert len(names) == len(set(names)), "at most one piece of a call in each event"


def test_what_waits_for_a_slow_reader_keeps_its_order() -> None:
    ended: list[RequestOutput] = []
    answers = Answers([output()], lambda request_id, index: None, ended.append)
    alone = output()
    given: list[CompletionDelta] = []
    for place in range(3 * MOST_PIECES):
        token = (2, 6, 3, 4)[place % 4]
        given += alone.feed(step(token), 1.0)
        answers.take(step(token), 1.0)
    assert order(list(answers.pieces)) == order(given)
    assert len(answers.pieces) < len(given)


def test_pieces_of_a_call_are_joined_and_calls_are_not() -> None:
    first, more = CALL.calls, ARGUMENTS[0].calls
    other = (ToolCallDelta(index=1, id="d", name="g"),)
    assert joined(first, more) == (ToolCallDelta(index=0, id="c", name="f", arguments='{"a"'),)
    assert joined(joined(first, more), other) == (*joined(first, more), *other)
    assert joined((), more) == more
