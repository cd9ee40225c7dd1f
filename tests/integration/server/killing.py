# SPDX-License-Identifier: Apache-2.0
"""Kills a process that stores responses, again and again, and looks for what it had acknowledged.

Run as a program it is that process: it writes a response, says its id once it is stored, and goes on.
"""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

WORDS = "word " * 2000


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
