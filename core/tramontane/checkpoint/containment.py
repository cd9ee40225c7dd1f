# SPDX-License-Identifier: Apache-2.0
"""Keeping to one directory: a checkpoint names files, and must not be able to name others than its own.

A link is followed within the directory, and into the ``blobs`` folder of the hub cache that the directory belongs to
(that is how the cache stores files). Nothing else is.
"""

from __future__ import annotations

from pathlib import Path

from tramontane.errors import CheckpointError


def contained(directory: Path, name: str) -> Path:
    """The file ``name`` of a directory, which must be a plain name; whether it exists is the caller's question.

    Raises:
        CheckpointError: The name is absolute or leads elsewhere, or it is a link that does.
    """
    if not name or name in (".", "..") or not name.isprintable() or set(name) & set("/\\:"):
        raise CheckpointError(f"{directory}: the index names the file {name!r}, which is not a plain file name")
    path = directory / name
    if not stays_inside(directory, path):
        raise CheckpointError(
            f"{path} is a link that leads out of its directory",
            hint="copy the file there, or link the whole directory instead of single files",
        )
    return path


def stays_inside(directory: Path, path: Path) -> bool:
    """Whether a file of the directory is not a link that leads out of it."""
    if not path.is_symlink():
        return True
    home = directory.resolve()
    allowed = [home, *(parent.parent / "blobs" for parent in home.parents if parent.name == "snapshots")]
    try:
        target = path.resolve()
    except (OSError, RuntimeError):  # a loop of links
        return False
    return any(target.is_relative_to(folder) for folder in allowed)
