# SPDX-License-Identifier: Apache-2.0
"""What a download would bring, known before it begins."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

from attrs import frozen


@frozen
class Listing:
    """The files of one commit that make up a model.

    Attributes:
        repository: Its name on the hub.
        commit: The commit's hash.
        root: The cache that the files go to.
        files: Name -> bytes of every file that is wanted.
        missing: Names of those that the cache does not hold yet.
        free: Bytes left on the cache's disk.
    """

    repository: str
    commit: str
    root: Path
    files: Mapping[str, int]
    missing: tuple[str, ...]
    free: int

    @property
    def nbytes(self) -> int:
        """Bytes of all files."""
        return sum(self.files.values())

    @property
    def nbytes_missing(self) -> int:
        """Bytes that have to be downloaded."""
        return sum(self.files[name] for name in self.missing)


Announce = Callable[[Listing], None]
"""Is told what will be downloaded; may raise to prevent it."""


def unannounced(_listing: Listing) -> None:
    """An :data:`Announce` that says nothing."""
