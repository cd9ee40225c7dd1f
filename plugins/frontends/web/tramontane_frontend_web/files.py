# SPDX-License-Identifier: Apache-2.0
"""The files of the page, read once. Only what lies in ``static`` is ever served, whatever a path spells."""

from __future__ import annotations

import hashlib
from functools import cache
from pathlib import Path

from attrs import frozen

FOLDER = Path(__file__).parent / "static"
INDEX = "index.html"
_TYPES = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".mjs": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}


@frozen
class StaticFile:
    """One file as it is served."""

    content: bytes
    media_type: str
    etag: str


@cache
def files() -> dict[str, StaticFile]:
    """Every file by its path below the mount; the page itself is at ``/``. Files of other kinds (licences, notes) are
    in the package and not served."""
    found = {f"/{path.relative_to(FOLDER).as_posix()}": path for path in FOLDER.rglob("*") if path.suffix in _TYPES}
    found["/"] = found.pop(f"/{INDEX}")
    return {name: _read(path) for name, path in sorted(found.items())}


def paths() -> frozenset[str]:
    """Where there is a file: paths that hold nothing secret."""
    return frozenset(files())


def _read(path: Path) -> StaticFile:
    content = path.read_bytes()
    return StaticFile(content, _TYPES[path.suffix], f'"{hashlib.sha256(content).hexdigest()[:32]}"')
