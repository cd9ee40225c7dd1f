# SPDX-License-Identifier: Apache-2.0
"""The small files beside the weights: configuration, tokenizer, chat template, generation defaults.

Read when asked, as text or JSON, with limits. Nothing named in them is ever imported or run: ``auto_map``,
``trust_remote_code`` and custom code are only data here.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from attrs import field, frozen

from tramontane.checkpoint.containment import stays_inside
from tramontane.errors import CheckpointError

#: Largest accompanying file that is read; the largest tokenizer.json in use has about 35 MB.
MAX_FILE_BYTES = 256 * 2**20


@frozen
class Files:
    """Named files of a checkpoint; a loader may provide some from memory (GGUF builds ``tokenizer.json``).

    Attributes:
        entries: File name -> where it lies, or a function that gives its bytes.
    """

    entries: Mapping[str, Path | Callable[[], bytes]] = field(factory=dict)

    @classmethod
    def in_directory(cls, directory: Path) -> Files:
        """The plain files of a directory, and the templates in its ``additional_chat_templates``."""
        entries: dict[str, Path | Callable[[], bytes]] = {}
        for path in (*sorted(directory.iterdir()), *sorted((directory / "additional_chat_templates").glob("*.jinja"))):
            name = path.relative_to(directory).as_posix()
            if not stays_inside(directory, path):
                entries[name] = _refuse(path)
            elif path.is_file():
                entries[name] = path
        return cls(entries)

    def __contains__(self, name: str) -> bool:
        return name in self.entries

    def path(self, name: str) -> Path | None:
        """Where the file lies; ``None`` if there is none or it exists in memory only."""
        entry = self.entries.get(name)
        return entry if isinstance(entry, Path) else None

    def bytes(self, name: str) -> bytes | None:
        """Content, or ``None`` if there is no such file.

        Raises:
            CheckpointError: The file is too large or cannot be read.
        """
        entry = self.entries.get(name)
        if entry is None:
            return None
        if not isinstance(entry, Path):
            return entry()
        try:
            size = entry.stat().st_size
            if size > MAX_FILE_BYTES:
                raise CheckpointError(f"{entry} has {size} bytes, over the limit of {MAX_FILE_BYTES}")
            return entry.read_bytes()
        except OSError as error:
            raise CheckpointError(f"cannot read {entry}: {error.strerror or error}") from error

    def text(self, name: str) -> str | None:
        """Content as UTF-8 text, or ``None`` if there is no such file.

        Raises:
            CheckpointError: The file is not UTF-8, too large or unreadable.
        """
        content = self.bytes(name)
        if content is None:
            return None
        try:
            return content.decode("utf-8-sig")
        except UnicodeDecodeError as error:
            raise CheckpointError(f"{self._where(name)} is not UTF-8 text: {error}") from error

    def json(self, name: str) -> dict[str, Any] | None:
        """Content as a JSON object, or ``None`` if there is no such file.

        Raises:
            CheckpointError: The file is not a JSON object.
        """
        text = self.text(name)
        if text is None:
            return None
        try:
            content = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise CheckpointError(f"{self._where(name)} is not valid JSON: {error}") from error
        if not isinstance(content, dict):
            raise CheckpointError(f"{self._where(name)} does not hold a JSON object")
        return content

    def _where(self, name: str) -> str:
        path = self.path(name)
        return str(path) if path else name


def _refuse(path: Path) -> Callable[[], bytes]:
    """An entry whose reading is an error: a link out of the directory."""

    def read() -> bytes:
        raise CheckpointError(f"{path} is a link that leads out of its directory", hint="copy the file there")

    return read
