# SPDX-License-Identifier: Apache-2.0
"""Frames over a pair of pipes: a word that says what it is, a body of plain JSON, and arrays as raw bytes behind it.

Owns the form and nothing of the meaning. A frame is a magic word, the length of its head, the head (JSON:
``[kind, body, [bytes of each array]]``) and the arrays.
"""

from __future__ import annotations

import json
import struct
import threading
from collections.abc import Iterator
from typing import IO, Any

from attrs import define, field, frozen

from tramontane.errors import EngineError

_MAGIC = b"TrMf"
_PREFIX = struct.Struct("<4sI")
MOST_HEAD = 1 << 30
"""Longest head, in bytes; a longer one is garbage."""


@frozen
class Frame:
    """One message."""

    kind: str
    body: Any
    """Of lists, mappings with text keys, texts, numbers, booleans and ``None``."""
    arrays: tuple[bytes | memoryview, ...] = ()


@define(eq=False)
class Channel:
    """Sends and receives frames. Any thread may send; one receives."""

    reader: IO[bytes]
    writer: IO[bytes]
    _lock: threading.Lock = field(factory=threading.Lock, init=False)

    def send(self, frame: Frame) -> None:
        """Write a frame; waits while the pipe is full.

        Raises:
            OSError: The other side is gone.
        """
        sizes = [memoryview(array).nbytes for array in frame.arrays]
        head = json.dumps([frame.kind, frame.body, sizes], separators=(",", ":")).encode()
        with self._lock:
            self.writer.write(_PREFIX.pack(_MAGIC, len(head)) + head)
            for array in frame.arrays:
                self.writer.write(array)
            self.writer.flush()

    def __iter__(self) -> Iterator[Frame]:
        """The frames of the other side until it closes its end or dies, be it within a frame.

        Raises:
            EngineError: What comes are no frames.
        """
        while True:
            prefix = self.reader.read(_PREFIX.size)
            if len(prefix) < _PREFIX.size:
                return
            magic, length = _PREFIX.unpack(prefix)
            if magic != _MAGIC or length > MOST_HEAD:
                raise EngineError("what came over the engine's pipe is no message of ours")
            head = self.reader.read(length)
            if len(head) < length:
                return
            kind, body, sizes = json.loads(head)
            arrays = tuple(self.reader.read(size) for size in sizes)
            if any(len(array) < size for array, size in zip(arrays, sizes, strict=True)):
                return
            yield Frame(kind, body, arrays)
