# SPDX-License-Identifier: Apache-2.0
"""Images and sound in a message: paths of files that exist become parts of their own, offered to the model.

Whether a model takes them is not decided here. A path in backticks stays words, as does one of no existing file.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

KINDS = {
    "image": ("png", "jpg", "jpeg", "webp", "gif", "bmp", "tif", "tiff"),
    "audio": ("wav", "mp3", "flac", "ogg", "opus", "m4a"),
}
"""File name endings by the kind of content part."""

_BY_ENDING = {f".{ending}": kind for kind, endings in KINDS.items() for ending in endings}
_WORD = re.compile(r"""`[^`]*`|(?<!\w)"([^"\n]+)"|(?<!\w)'([^'\n]+)'|((?:\\.|[^\s`"'()]|(?<=\w)')+)""")
_ESCAPED = re.compile(r"""\\([ ()'"&])""")


def content(text: str) -> str | list[dict[str, Any]]:
    """What a message holds: its text, or its parts in order where it names images or sound.

    A path may stand in quotes, or have its spaces escaped, as terminals write files that are dropped onto them.
    """
    parts: list[dict[str, Any]] = []
    end = 0
    for match in _WORD.finditer(text):
        written = match[1] or match[2] or _ESCAPED.sub(r"\1", match[3] or "").rstrip(",;:!?")
        path = _media(written)
        if path is not None:
            parts += _words(text[end : match.start()])
            parts.append({"type": kind_of(path), "path": str(path)})
            end = match.start() + len(match[0].rstrip(",;:!?"))
    return [*parts, *_words(text[end:])] if parts else text


def kind_of(path: Path) -> str | None:
    """The kind of content part that a file's name speaks of; ``None`` for text and everything else."""
    return _BY_ENDING.get(path.suffix.lower())


def _media(written: str) -> Path | None:
    """The file of that name, if it is one that may be shown to a model."""
    path = Path(written.removeprefix("file://")).expanduser() if written else Path()
    if kind_of(path) is None:
        return None
    try:
        return path.resolve() if path.is_file() else None
    except OSError:  # a name too long to be one
        return None


def _words(text: str) -> list[dict[str, Any]]:
    return [{"type": "text", "text": text.strip()}] if text.strip() else []
