# SPDX-License-Identifier: Apache-2.0
"""The hub's local cache: finding a snapshot without the network, and noting one that is complete.

The layout is that of https://huggingface.co/docs/huggingface_hub/guides/manage-cache:
``models--OWNER--NAME/{refs/REVISION, snapshots/COMMIT/FILE -> ../../blobs/...}``. It is shared with every other program
that uses the hub's client.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path

from attrs import frozen

from tramontane.errors import DiskFullError
from tramontane.memory import format_bytes


@frozen
class RepositoryCache:
    """One repository's folder in the cache."""

    root: Path
    repository: str

    @property
    def folder(self) -> Path:
        """Where the repository's files are kept."""
        return self.root / f"models--{self.repository.replace('/', '--')}"

    def snapshot(self, revision: str) -> Path | None:
        """The folder of a branch, tag or commit that is cached; ``None`` if there is none."""
        try:
            commit = (self.folder / "refs" / revision).read_text(encoding="ascii").strip()
        except (OSError, UnicodeDecodeError):
            commit = revision
        if not commit.isalnum():
            return None
        folder = self.folder / "snapshots" / commit
        return folder if folder.is_dir() and any(folder.iterdir()) else None

    def holds(self, commit: str, name: str) -> bool:
        """Whether a file of a commit is cached."""
        return (self.folder / "snapshots" / commit / name).is_file()

    def note(self, revision: str, commit: str) -> None:
        """Record that a revision is this commit, so that it is found without the network; only when complete."""
        if revision == commit:
            return
        path = self.folder / "refs" / revision
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            handle, temporary = tempfile.mkstemp(dir=path.parent)
            with os.fdopen(handle, "w", encoding="ascii") as file:
                file.write(commit)
            Path(temporary).replace(path)
        except OSError:  # a read-only cache: everything is there, only offline use by branch name is not
            return

    def free(self) -> int:
        """Bytes that the disk under the cache has left."""
        place = self.root
        while not place.exists() and place != place.parent:
            place = place.parent
        return shutil.disk_usage(place).free

    def check_room(self, need: int) -> None:
        """Refuse a download that cannot fit.

        Raises:
            DiskFullError: With the numbers.
        """
        free = self.free()
        if need > free:
            raise DiskFullError(
                f"{self.repository} needs {format_bytes(need)} in {self.root}, which has {format_bytes(free)} left",
                hint="make room, or set HF_HOME to a folder on another disk",
            )
