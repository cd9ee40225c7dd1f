# SPDX-License-Identifier: Apache-2.0
"""What a person types first: the demo model by one command, in a chat through a pipe, measured by bench."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("tramontane_loader_demo", reason="the demo plugin is not installed")


def _tramontane(*arguments: str, text: str = "", home: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "tramontane", *arguments],
        input=text,
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
        env={**os.environ, "HF_HUB_OFFLINE": "1", "XDG_STATE_HOME": str(home)},
    )


def test_a_story(tmp_path: Path) -> None:
    ended = _tramontane("run", "-p", "Once upon a time", "--seed", "1", home=tmp_path)
    assert ended.stdout.startswith("Once upon a time")
    assert len(ended.stdout.split()) > 20
    assert "This is the embedded demo model" in ended.stderr
    again = _tramontane("run", "demo", "--seed", "1", text="Once upon a time", home=tmp_path)
    assert again.stdout == ended.stdout


def test_a_raw_beginning_is_completed(tmp_path: Path) -> None:
    ended = _tramontane("run", "-p", "Once upon a time", "--raw", home=tmp_path)
    assert not ended.stdout.startswith("Once")
    assert len(ended.stdout.split()) > 20


def test_a_chat_in_a_pipe(tmp_path: Path) -> None:
    typed = "/temperature 0\nWho are you?\n/stats off\nWhat is the opposite of hot?\n/exit\n"
    ended = _tramontane("run", "-i", "-v", text=typed, home=tmp_path)
    assert ended.stdout.splitlines() == [
        "I am the demo model of Tramontane, a very small language model.",
        "The opposite of hot is cold.",
    ]
    notes = ended.stderr.splitlines()
    assert sum("first token" in line for line in notes) == 1


def test_bench(tmp_path: Path) -> None:
    ended = _tramontane("bench", "-p", "32", "-g", "8", "-c", "1,2", "-r", "2", "--json", home=tmp_path)
    rows = json.loads(ended.stdout)
    assert [(row["test"], row["concurrency"]) for row in rows] == [("pp32", 1), ("tg8", 1), ("pp32", 2), ("tg8", 2)]
    assert all(row["tokens_per_s"] > 1 for row in rows)
