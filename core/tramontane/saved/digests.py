# SPDX-License-Identifier: Apache-2.0
"""Digests of files' contents, remembered for files that did not change since.

A file is taken for unchanged while its size, its time of change and its number (inode) are.
"""

from __future__ import annotations

import json
import logging
import os
import threading
from concurrent.futures import ThreadPoolExecutor
from hashlib import blake2b
from pathlib import Path
from typing import Any

from attrs import define, field

_log = logging.getLogger(__name__)

PIECE = 64 * 2**20
"""Bytes that are read and digested together: pieces of one file go to all processors."""


def digest_file(path: Path) -> str:
    """The digest of a file's pieces' digests (BLAKE2b).

    Raises:
        OSError: It cannot be read.
    """
    size = path.stat().st_size

    def piece(offset: int) -> bytes:
        with path.open("rb") as file:
            file.seek(offset)
            return blake2b(file.read(PIECE), digest_size=32).digest()

    with ThreadPoolExecutor(os.cpu_count() or 1) as pool:
        return blake2b(b"".join(pool.map(piece, range(0, size, PIECE))), digest_size=32).hexdigest()


@define
class Digests:
    """What is known of files, kept in a JSON file of its own."""

    path: Path
    _known: dict[str, Any] = field(init=False, repr=False)

    def __attrs_post_init__(self) -> None:
        try:
            known = json.loads(self.path.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            known = {}  # nothing is lost but the time to read the files again
        self._known = known if isinstance(known, dict) else {}

    def of(self, path: Path) -> str:
        """The digest of one file.

        Raises:
            OSError: It cannot be read.
        """
        path = path.resolve()
        facts = path.stat()
        state = [facts.st_size, facts.st_mtime_ns, facts.st_ino]
        known = self._known.get(str(path))
        if isinstance(known, dict) and known.get("state") == state and isinstance(known.get("digest"), str):
            return str(known["digest"])
        digest = digest_file(path)
        self._known[str(path)] = {"state": state, "digest": digest}
        self._write()
        return digest

    def _write(self) -> None:
        unfinished = self.path.with_name(f"{self.path.name}.{os.getpid()}.{threading.get_ident()}")
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            unfinished.write_text(json.dumps(self._known), encoding="utf-8")
            unfinished.replace(self.path)
        except OSError as error:
            unfinished.unlink(missing_ok=True)
            _log.warning("digests cannot be kept in %s: %s", self.path, error.strerror or error)
