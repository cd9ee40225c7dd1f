# SPDX-License-Identifier: Apache-2.0
"""A client that costs next to nothing: many streams read by one thread from plain sockets, with no library between.
Where it can (Linux) it takes no core from a thread that runs, since a client of another machine would not either.

    python reader.py < job.json

The job is ``{"host", "port", "path", "bodies"}``; each body is posted over a connection of its own, all at once. What
comes is counted and thrown away but for its end, which must hold the usage (``stream_options.include_usage``). One
JSON object is printed: ``seconds`` from the first byte sent to the last one read, ``cpu_s`` of this process meanwhile,
and of all streams ``tokens``, ``frames`` and ``bytes``.
"""

from __future__ import annotations

import json
import os
import re
import selectors
import socket
import sys
import time
from typing import Any

_READ = 1 << 16
_TAIL = 4096
"""Bytes at the end of a stream that are kept: its last event and the one with the usage are in them."""


class Stream:
    """One request and what has come of its answer."""

    def __init__(self, address: tuple[str, int], path: str, body: bytes) -> None:
        self.socket = socket.create_connection(address)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        head = (f"POST {path} HTTP/1.1\r\nHost: {address[0]}:{address[1]}\r\nContent-Type: application/json\r\n"
                f"Connection: close\r\nContent-Length: {len(body)}\r\n\r\n")  # fmt: skip
        self.request = head.encode() + body
        self.frames = self.bytes = 0
        self.tail = b""

    def take(self) -> bool:
        """Read what is there; whether more will come."""
        piece = self.socket.recv(_READ)
        self.frames += piece.count(b"data: ")
        self.bytes += len(piece)
        self.tail = (self.tail + piece)[-_TAIL:]
        return bool(piece)

    def tokens(self) -> int:
        """How many tokens the server says it sent.

        Raises:
            RuntimeError: The stream did not come to its end.
        """
        told = re.findall(rb'"completion_tokens":(\d+)', self.tail)
        if b"data: [DONE]" not in self.tail or not told:
            raise RuntimeError(f"a stream ended early: {self.tail[-300:]!r}")
        return int(told[-1])


def run(job: dict[str, Any]) -> dict[str, float]:
    """Read all streams of a job to their end."""
    address = (job["host"], job["port"])
    streams = [Stream(address, job["path"], json.dumps(body).encode()) for body in job["bodies"]]
    waiting = selectors.DefaultSelector()
    cpu, begun = time.process_time(), time.perf_counter()
    for stream in streams:
        waiting.register(stream.socket, selectors.EVENT_READ, stream)
        stream.socket.sendall(stream.request)
    while waiting.get_map():
        for key, _ in waiting.select():
            if not key.data.take():
                waiting.unregister(key.fileobj)
    seconds, cpu_s = time.perf_counter() - begun, time.process_time() - cpu
    for stream in streams:
        stream.socket.close()
    return {
        "seconds": seconds,
        "cpu_s": cpu_s,
        "tokens": sum(stream.tokens() for stream in streams),
        "frames": sum(stream.frames for stream in streams),
        "bytes": sum(stream.bytes for stream in streams),
    }


if __name__ == "__main__":
    if sys.platform == "linux":
        os.sched_setscheduler(0, os.SCHED_BATCH, os.sched_param(0))
    print(json.dumps(run(json.load(sys.stdin))))
