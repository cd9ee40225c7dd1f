# SPDX-License-Identifier: Apache-2.0
"""A host with a model that calls tools and with the demo model, and the whole server over it on a port of loopback."""

from __future__ import annotations

import asyncio
import socket
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import uvicorn

from tramontane.host import Host
from tramontane.plugins import installed

sys.path.insert(0, str(Path(__file__).parents[2] / "plugins" / "scripted"))
pytest.importorskip("tramontane_tools_chat_formats", reason="reads the scripted model's calls")
demo = pytest.importorskip("tramontane_loader_demo.plugin", reason="lends its tokenizer")

import tramontane_scripted.plugin  # noqa: E402
from tramontane_scripted.talking import TEMPLATE, write_talking  # noqa: E402


def make_host(folder: Path, **settings: Any) -> Host:
    """``talker`` thinks and calls, ``plain`` calls at once, ``storyteller`` is the demo model with a template."""
    host = Host(installed().extended([tramontane_scripted.plugin]), state_dir=folder / "state")
    common = {"num_blocks": 600, "chat_format": "hermes", **settings}
    host.add("talker", str(write_talking(folder / "talker", demo.FOLDER)), **common)
    host.add("plain", str(write_talking(folder / "plain", demo.FOLDER, thinks=False)), **common)
    host.add("storyteller", "demo", chat_template=TEMPLATE, **common)
    return host


@contextmanager
def listening(app: Any) -> Iterator[str]:
    """Serve an application in a thread of its own; its base URL."""
    from tramontane_frontend_http.protocol import hurried

    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        config = uvicorn.Config(app, http=hurried(15.0), ws="none", log_config=None, access_log=False, lifespan="off")
        server = uvicorn.Server(config)
        thread = threading.Thread(target=lambda: asyncio.run(server.serve([bound])), daemon=True)
        thread.start()
        try:
            yield f"http://127.0.0.1:{bound.getsockname()[1]}"
        finally:
            server.should_exit = True
            thread.join(30)


@pytest.fixture(scope="session")
def host(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Host]:
    made = make_host(tmp_path_factory.mktemp("server"))
    yield made
    made.close()


@pytest.fixture(scope="session")
def server(host: Host) -> Iterator[str]:
    from tramontane_frontend_http import make_app

    with listening(make_app(host)) as url:
        yield url
