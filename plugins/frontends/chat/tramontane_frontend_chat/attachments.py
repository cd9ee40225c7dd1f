# SPDX-License-Identifier: Apache-2.0
"""Files that a person attaches to the next message: a text is told with its name, images and sound are parts."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from attrs import frozen

from tramontane.chat.messages import named_text
from tramontane.errors import RequestError
from tramontane_frontend_chat.media import content, kind_of

MOST_BYTES = 2 * 2**20
"""Of a text file; a longer one fits no context."""


@frozen
class Attachment:
    """A file as a part of a message."""

    name: str
    part: dict[str, Any]


def attach(written: str) -> Attachment:
    """A file by its path.

    Raises:
        RequestError: There is none, or it is neither text nor an image nor sound.
    """
    path = Path(written).expanduser()
    try:
        kind = kind_of(path)
        if kind is not None and path.is_file():
            return Attachment(path.name, {"type": kind, "path": str(path.resolve())})
        with path.open("rb") as file:
            read = file.read(MOST_BYTES + 1)
    except OSError as error:
        raise RequestError(f"{written} cannot be read: {error.strerror or error}") from None
    if len(read) > MOST_BYTES:
        raise RequestError(f"{written} is larger than {MOST_BYTES // 2**20} MiB")
    try:
        text = read.decode("utf-8")
    except UnicodeDecodeError:
        text = "\0"
    if "\0" in text:
        raise RequestError(f"{written} is neither a text file nor an image or sound")
    return Attachment(path.name, {"type": "text", "text": named_text(path.name, text)})


def with_attachments(attached: Sequence[Attachment], text: str) -> str | list[dict[str, Any]]:
    """What a message holds: the files before what was typed; a text, where all of it is text."""
    typed = content(text)
    if not attached:
        return typed
    said = typed if isinstance(typed, list) else [{"type": "text", "text": typed}]
    parts = [*(one.part for one in attached), *said]
    if all(part["type"] == "text" for part in parts):
        return "\n".join(part["text"] for part in parts)
    return parts
