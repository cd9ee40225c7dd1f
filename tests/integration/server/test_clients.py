# SPDX-License-Identifier: Apache-2.0
"""Programs that people use, pointed at the server: each chats, streams and lets the model call a tool.

The vendors' own clients are development dependencies; the others live in environments of their own, made by
``python scripts/client_environment.py``.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import httpx
import pytest
from serving import python_of
from tramontane_scripted.talking import SUNNY, THOUGHT

DRIVER = Path(__file__).parent / "clients" / "chats.py"
OURS = ("openai_sync", "openai_async", "anthropic")
THEIRS = {"langchain": "main", "pydantic_ai": "main", "llm": "main", "llama_index": "llama-index"}


@pytest.fixture(scope="module")
def told(server: str) -> str:
    """What the demo model tells, asked without any client."""
    turn = [{"role": "user", "content": "Tell me a story."}]
    body = {"model": "storyteller", "messages": turn, "max_tokens": 24, "temperature": 0}
    answer = httpx.post(f"{server}/v1/chat/completions", json=body, timeout=120)
    text: str = answer.json()["choices"][0]["message"]["content"]
    assert len(text) > 20
    return text


@pytest.mark.parametrize("client", [*OURS, *THEIRS])
def test_a_client_chats_streams_and_calls(client: str, server: str, told: str) -> None:
    python = python_of(THEIRS[client]) if client in THEIRS else sys.executable
    if client in OURS:
        pytest.importorskip(client.partition("_")[0], reason="a development dependency")
    done = subprocess.run(
        [python, str(DRIVER), client, server], capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["chat"] == found["stream"] == told
    assert found["asked"] == [{"city": "Rome", "days": 2}]
    assert found["final"] == SUNNY
    if client == "openai_sync":
        assert found["parsed"]
        assert found["response"] == told
        assert found["reasoning"] == THOUGHT
