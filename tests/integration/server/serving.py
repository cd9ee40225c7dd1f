# SPDX-License-Identifier: Apache-2.0
"""A host with a model that calls tools and with the demo model, and the whole server over it on a port of loopback."""

from __future__ import annotations

import asyncio
import os
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import tramontane_scripted.plugin
import uvicorn
from tramontane_scripted.talking import TEMPLATE, write_talking

from tramontane.host import Host
from tramontane.plugins import installed

pytest.importorskip("tramontane_tools_chat_formats", reason="reads the scripted model's calls")
demo = pytest.importorskip("tramontane_loader_demo.plugin", reason="lends its tokenizer")

ROOT = Path(__file__).parents[3]


def python_of(environment: str) -> str:
    """The interpreter of one of the clients' environments."""
    base = Path(os.environ.get("TRAMONTANE_CLIENTS", ROOT / ".venv-clients"))
    found = base / environment / "bin" / "python"
    if not found.exists():
        pytest.skip(f"no clients in {base / environment}: python scripts/client_environment.py makes it")
    return str(found)


def make_host(folder: Path, *, apart: bool = False, **settings: Any) -> Host:
    """``talker`` thinks and calls, ``plain`` calls at once, ``storyteller`` is the demo model with a template."""
    host = Host(installed().extended([tramontane_scripted.plugin]), state_dir=folder / "state", apart=apart)
    common = {"num_blocks": 600, "chat_format": "hermes", **settings}
    host.add("talker", str(write_talking(folder / "talker", demo.FOLDER)), **common)
    host.add("plain", str(write_talking(folder / "plain", demo.FOLDER, thinks=False)), **common)
    # In bfloat16 a batch can turn near ties, and answers are held against those given alone.
    host.add("storyteller", "demo", chat_template=TEMPLATE, **{"dtype": "float32", **common})
    return host


@contextmanager
def listening(app: Any) -> Iterator[str]:
    """Serve an application in a thread of its own; its base URL."""
    from tramontane_frontend_http.protocol import hurried
    from tramontane_frontend_http.server import new_loop

    def run() -> None:
        with asyncio.Runner(loop_factory=new_loop) as runner:
            runner.run(server.serve([bound]))

    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        bound.listen()  # who connects before the thread serves waits, and is not refused
        config = uvicorn.Config(
            app, http=hurried(15.0), ws="none", log_config=None, access_log=False, lifespan="off",
            timeout_keep_alive=75,  # as of the server itself: with uvicorn's 5 s a client may meet a closing connection
        )  # fmt: skip
        server = uvicorn.Server(config)
        thread = threading.Thread(target=run, daemon=True)
        thread.start()
        try:
            yield f"http://127.0.0.1:{bound.getsockname()[1]}"
        finally:
            server.should_exit = True
            thread.join(30)
