# SPDX-License-Identifier: Apache-2.0
"""Concurrent streams over HTTP: the same client against ``tramontane serve`` and ``llama-server``.

Every stream sends a prompt of its own to ``/v1/completions`` and asks for a fixed number of tokens. Counted are the
tokens of all streams over the time from the first request to the last answer, prompts included.
"""

from __future__ import annotations

import http.client
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path

from attrs import define
from environment import tool
from files import prompt_text

PROMPT = 32


@define
class Server:
    """A server that answers on a port of this machine."""

    name: str
    port: int
    ready_s: float
    """From the start of the process to the first token of a first request."""
    seed: int = 0

    def round(self, streams: int, tokens: int) -> float:
        """All streams at a time: tokens per second."""
        self.seed += streams
        prompts = [prompt_text(PROMPT, self.seed + index) for index in range(streams)]
        start = time.perf_counter()
        with ThreadPoolExecutor(streams) as clients:
            list(clients.map(lambda prompt: complete(self.port, prompt, tokens), prompts))
        return streams * tokens / (time.perf_counter() - start)


@contextmanager
def servers(commands: dict[str, list[str]], threads: int) -> Iterator[list[Server]]:
    """Start servers one after the other; all run until the end."""
    with ExitStack() as stack:
        ports = {name: int(command[command.index("--port") + 1]) for name, command in commands.items()}
        yield [stack.enter_context(_served(name, commands[name], ports[name], threads)) for name in commands]


@contextmanager
def _served(name: str, command: list[str], port: int, threads: int) -> Iterator[Server]:
    """Start a server, wait for its first token, and end it afterwards."""
    environment = {**os.environ, "OMP_NUM_THREADS": str(threads), "TRAMONTANE_CPU_THREADS": str(threads)}
    start = time.perf_counter()
    process = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        while True:
            try:
                complete(port, "a", 1)
                break
            except (OSError, http.client.HTTPException, RuntimeError):
                if process.poll() is not None:
                    sys.exit(f"{' '.join(command)} ended with {process.returncode}")
                time.sleep(0.05)
        yield Server(name, port, time.perf_counter() - start)
    finally:
        process.terminate()
        process.wait(60)


def ours(model: Path, port: int, streams: int) -> list[str]:
    """Our server's command."""
    program = str(Path(sys.executable).with_name("tramontane"))
    sizes = ["--max-num-seqs", str(streams), "--max-model-len", "512", "--no-prefix-cache"]
    return [program, "serve", str(model), "--port", str(port), *sizes]


def llama(model: Path, port: int, streams: int, threads: int) -> list[str]:
    """llama-server's command: a slot for each stream."""
    sizes = ["-np", str(streams), "-c", str(512 * streams), "-t", str(threads), "-tb", str(threads)]
    return [str(tool("llama-server")), "-m", str(model), "--port", str(port), "--host", "127.0.0.1", *sizes]


def complete(port: int, prompt: str, tokens: int) -> None:
    """Stream one completion to its end."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=300)
    body = {
        "model": "default",
        "prompt": prompt,
        "max_tokens": tokens,
        "temperature": 0,
        "ignore_eos": True,
        "stream": True,
    }
    connection.request("POST", "/v1/completions", json.dumps(body), {"Content-Type": "application/json"})
    answer = connection.getresponse()
    if answer.status != 200:
        raise RuntimeError(f"status {answer.status}: {answer.read(300)!r}")
    lines = list(answer)
    connection.close()
    if not any(line.startswith(b"data:") and b"[DONE]" in line for line in lines):
        raise RuntimeError("the stream broke off")
