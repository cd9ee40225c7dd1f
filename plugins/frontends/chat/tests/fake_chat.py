# SPDX-License-Identifier: Apache-2.0
"""Run as a program: the terminal chat over a model whose answers are written here. ``raw`` takes its template away,
``quiet`` the figures after each answer."""

from __future__ import annotations

import sys

from tramontane.api.service import Service
from tramontane.errors import ModelNotFoundError
from tramontane.host import FrontendOptions, Host
from tramontane.testing.answering import answering_service
from tramontane_frontend_chat.app import run

LONG = "".join(f"- point number {number}\n" for number in range(60))


def answer(prompt: str) -> str:
    """By the last words of the conversation."""
    last = prompt.removesuffix("<assistant>").rstrip("\n").rpartition(">")[2]
    known = {"hello": "**Hello** to *you*.", "long": LONG, "evil": "a\x1b]0;owned\x07b"}
    return known.get(last, f"You said {last!r} as line {prompt.count('<user>')}.")


def load(reference: str, settings: object, plugins: object, progress: object, name: str | None = None) -> Service:
    """A model of any name; of ``none`` there is none."""
    if reference == "none":
        raise ModelNotFoundError("there is no model none")
    return answering_service(answer, chat=reference != "raw", step_s=0.002, name=name or reference, max_model_len=4096)


def chat(*words: str) -> None:
    """Chat on the standard streams."""
    verbosity = 0 if "quiet" in words else 1
    host = Host()
    host.add("raw" if "raw" in words else "fake")
    host.add("other", "path/to/other")
    run(host, FrontendOptions(system="Be kind.", sampling={"temperature": 0.5}, verbosity=verbosity))


if __name__ == "__main__":
    Service.load = load  # type: ignore[assignment, method-assign]
    chat(*sys.argv[1:])
    print("left", file=sys.stderr)
