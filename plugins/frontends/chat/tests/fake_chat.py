# SPDX-License-Identifier: Apache-2.0
"""Run as a program: the terminal chat over a model whose answers are written here. ``raw`` takes its template away,
``quiet`` the figures after each answer."""

from __future__ import annotations

import sys

from tramontane.api import AsyncLLM
from tramontane.host import FrontendOptions
from tramontane.testing.answering import answering_service
from tramontane_frontend_chat.app import run

LONG = "".join(f"- point number {number}\n" for number in range(60))


def answer(prompt: str) -> str:
    """By the last words of the conversation."""
    last = prompt.removesuffix("<assistant>").rstrip("\n").rpartition(">")[2]
    known = {"hello": "**Hello** to *you*.", "long": LONG, "evil": "a\x1b]0;owned\x07b"}
    return known.get(last, f"You said {last!r} as line {prompt.count('<user>')}.")


class FakeHost:
    """As much of a host as a frontend with a loop of its own needs."""

    def __init__(self, chat: bool) -> None:
        self.llm = AsyncLLM.over(answering_service(answer, chat=chat, step_s=0.002, name="fake", max_model_len=4096))

    async def acquire(self, name: str | None = None) -> AsyncLLM:
        """The one model."""
        return self.llm


if __name__ == "__main__":
    verbosity = 0 if "quiet" in sys.argv else 1
    options = FrontendOptions(system="Be kind.", sampling={"temperature": 0.5}, verbosity=verbosity)
    run(FakeHost(chat="raw" not in sys.argv), options)  # type: ignore[arg-type]
    print("left", file=sys.stderr)
