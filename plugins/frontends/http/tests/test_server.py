# SPDX-License-Identifier: Apache-2.0
"""The whole server: as a process it starts, answers and drains on SIGTERM; as a command it says why it cannot."""

from __future__ import annotations

import json
import logging
import os
import re
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Thread

import httpx
import psutil
import pytest

from tramontane.cli.app import run

pytest.importorskip("tramontane_loader_demo", reason="serves the demo model")
pytest.importorskip("tramontane_frontend_openai", reason="asks the OpenAI frontend")


@contextmanager
def served(*options: str) -> Iterator[tuple[subprocess.Popen[str], str, list[str]]]:
    """A server of the demo model: process, base URL, and what it has said so far."""
    command = [
        sys.executable,
        "-m",
        "tramontane",
        "serve",
        "-m",
        "demo",
        "--port",
        "0",
        "--state-dir",
        "none",
        *options,
    ]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True)
    said: list[str] = []
    assert process.stderr is not None
    reader = Thread(target=lambda: said.extend(iter(process.stderr.readline, "")), daemon=True)  # type: ignore[union-attr]
    reader.start()
    try:
        until = time.monotonic() + 150
        while time.monotonic() < until:
            found = re.search(r"at (https?://\S+)", "".join(said))
            if found:
                yield process, found[1], said
                return
            if process.poll() is not None:
                break
            time.sleep(0.05)
        raise AssertionError(f"the server did not start: {''.join(said)}")
    finally:
        if process.poll() is None:
            process.kill()
        process.wait(30)


def certificate(folder: Path) -> tuple[str, str]:
    """A certificate for loopback that signs itself, and its key."""
    if shutil.which("openssl") is None:
        pytest.skip("openssl makes the certificate")
    paths = str(folder / "cert.pem"), str(folder / "key.pem")
    command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    command += ["-days", "2", "-subj", "/CN=localhost", "-addext", "subjectAltName=IP:127.0.0.1"]
    subprocess.run([*command, "-out", paths[0], "-keyout", paths[1]], check=True, capture_output=True)
    return paths


def test_it_answers_by_https_logs_interrupts_no_engine_and_drains(tmp_path: Path) -> None:
    """One server, since each takes seconds to start."""
    cert, key = certificate(tmp_path)
    trusting = ssl.create_default_context(cafile=cert)
    with (
        served("--drain-seconds", "20", "--tls-certificate", cert, "--tls-key", key) as (process, url, said),
        httpx.Client(base_url=url, verify=trusting, timeout=60) as client,
    ):
        assert client.get("/health").json()["status"] == "ok"
        with pytest.raises(httpx.ConnectError, match="self-signed"):
            httpx.get(f"{url}/health")
        assert "tramontane_sampled_tokens_total" in client.get("/metrics").text
        if sys.platform == "linux":
            (engine,) = psutil.Process(process.pid).children()
            assert os.sched_getscheduler(process.pid) == os.SCHED_BATCH, "the thread with the event loop"
            assert {os.sched_getscheduler(thread.id) for thread in engine.threads()} == {os.SCHED_OTHER}
        body = {"model": "demo", "prompt": "Once upon a time", "max_tokens": 300, "ignore_eos": True, "stream": True}
        with client.stream("POST", "/v1/completions", json=body) as answer:
            lines = answer.iter_lines()
            assert next(lines).startswith("data: {")
            process.send_signal(signal.SIGTERM)
            rest = [line for line in lines if line]
        assert rest[-1] == "data: [DONE]", "an open answer is ended, not cut"
        assert json.loads(rest[-2].removeprefix("data: "))["choices"][0]["finish_reason"] == "length"
        assert process.wait(30) == 0
    entries = [json.loads(line) for line in said if line.startswith("{")]
    assert {(e["path"], e["status"]) for e in entries} >= {("/health", 200), ("/v1/completions", 200)}


def test_a_port_in_use_is_said_at_once(capsys: pytest.CaptureFixture[str]) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        assert run(["serve", "-m", "demo", "--port", port]) == 1
    said = capsys.readouterr().err
    assert f"port {port} is in use" in said
    assert "--port 0" in said
    assert logging.getLogger("tramontane.access").handlers == [], "it leaves no log behind that nobody reads"


def test_an_open_bind_without_a_key_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["serve", "-m", "demo", "--host", "0.0.0.0", "--port", "0"]) == 1
    assert "--insecure" in capsys.readouterr().err
