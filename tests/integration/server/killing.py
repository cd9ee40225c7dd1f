# SPDX-License-Identifier: Apache-2.0
"""Kills a process that stores responses, again and again, and looks for what it had acknowledged.

That process is a whole server, or, cheaper and denser, this module run as a program: it writes a response, says its id
once it is stored, and goes on.
"""

from __future__ import annotations

import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import httpx

WORDS = "word " * 2000
EACH = 20
"""Responses of a server that are acknowledged before it is killed, in the middle of others."""


def run(folder: Path, kills: int) -> tuple[int, list[str]]:
    """How many responses were acknowledged, and which of them are not there."""
    from tramontane_frontend_openai.store import Store

    path, acknowledged = folder / "openai.sqlite3", []
    for _ in range(kills):
        with subprocess.Popen([sys.executable, __file__, str(path)], stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None
            acknowledged.append(process.stdout.readline().strip())
            time.sleep(0.3)
            process.kill()
            acknowledged += [
                line.strip() for line in process.stdout.read().splitlines(keepends=True) if line[-1] == "\n"
            ]
    store = Store(path)
    return len(acknowledged), [one for one in acknowledged if store.response(b"", one) is None]


def run_server(folder: Path, kills: int) -> tuple[int, list[str]]:
    """The same of a server that four clients ask for responses."""
    from processes import served

    flags = ("--state-dir", str(folder))
    acknowledged: list[str] = []
    for _ in range(kills):
        with served(*flags) as (url, process), ThreadPoolExecutor(4) as clients:
            asking = [clients.submit(_ask, url, acknowledged) for _ in range(4)]
            wanted, until = len(acknowledged) + EACH, time.monotonic() + 120
            while len(acknowledged) < wanted and time.monotonic() < until:
                time.sleep(0.003)
            process.kill()
            for one in asking:
                one.result(60)
    with served(*flags) as (url, _):
        missing = [one for one in acknowledged if httpx.get(f"{url}/v1/responses/{one}").status_code != 200]
    return len(acknowledged), missing


def _ask(url: str, acknowledged: list[str]) -> None:
    """Ask until the server is gone; note what it says is stored."""
    body = {"model": "demo", "input": "Tell me a story.", "max_output_tokens": 2}
    with suppress(httpx.TransportError), httpx.Client(timeout=60) as client:
        while True:
            answer = client.post(f"{url}/v1/responses", json=body)
            answer.raise_for_status()
            acknowledged.append(answer.json()["id"])


def write(path: Path) -> None:
    """Store responses until something stops it."""
    import uuid

    from tramontane_frontend_openai.store import Store, StoredResponse

    store = Store(path)
    while True:
        body = {"id": f"resp_{uuid.uuid4().hex}", "output": [], "status": "completed", "text": WORDS}
        store.put_response(b"", StoredResponse(body=body, input=[]))
        print(body["id"], flush=True)


if __name__ == "__main__":
    write(Path(sys.argv[1]))
