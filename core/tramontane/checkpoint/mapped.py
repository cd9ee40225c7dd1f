# SPDX-License-Identifier: Apache-2.0
"""A file mapped into memory, seen as tensors without copying.

Pages are read when touched and can be dropped by the system at any time, so mapped weights cost no anonymous memory.
Those that were touched while a model was read count as the process's nevertheless, and under a limit on memory they
crowd out others: so a file lets go of what lies behind, some of it at a time. Whoever touches that again finds it, as a
rule still in the system's cache.
"""

from __future__ import annotations

import mmap
import sys
import warnings
from math import prod
from pathlib import Path

import torch
from attrs import define, field
from torch import Tensor

from tramontane.errors import CheckpointError

#: Keeps a private writable mapping from being charged against the machine's memory (Linux; 0 elsewhere).
_NO_RESERVE = getattr(mmap, "MAP_NORESERVE", 0x4000 if sys.platform == "linux" else 0)

#: Bytes handed out before the pages of what was handed out earlier are let go.
_KEPT_BYTES = 64 << 20


@define(eq=False)
class MappedFile:
    """One mapped file. The mapping is made on first use and lives as long as a tensor made from it."""

    path: Path
    size: int
    _mapping: mmap.mmap | None = field(default=None, init=False, repr=False)
    _bytes: Tensor | None = field(default=None, init=False, repr=False)
    _given: int = field(default=0, init=False, repr=False)
    """Bytes handed out since pages were let go."""
    _closed: bool = field(default=False, init=False, repr=False)

    @classmethod
    def at(cls, path: Path) -> MappedFile:
        """The file at ``path``, not yet mapped.

        Raises:
            CheckpointError: The file cannot be read.
        """
        try:
            return cls(path, path.stat().st_size)
        except OSError as error:
            raise CheckpointError(f"cannot read {path}: {error.strerror or error}") from error

    def tensor(self, offset: int, dtype: torch.dtype, shape: tuple[int, ...]) -> Tensor:
        """The ``shape`` elements of ``dtype`` at byte ``offset``, a view of the file.

        It is copied where the offset is not a multiple of the element size (torch's kernels need aligned data), and for
        booleans, of which a hostile file could hold values other than 0 and 1.

        Raises:
            CheckpointError: The file is closed, or ends before the tensor does.
        """
        count = prod(shape)
        if offset < 0 or offset + count * dtype.itemsize > self.size:
            raise CheckpointError(f"{self.path}: a tensor at byte {offset} reaches past the end of the file")
        if count == 0:
            return torch.empty(shape, dtype=dtype)
        self._pass_on(count * dtype.itemsize)
        raw = self._all()[offset : offset + count * dtype.itemsize]
        if dtype == torch.bool:
            return raw.ne(0).view(shape)
        if offset % dtype.itemsize:
            raw = raw.clone()
        return raw.view(dtype).view(shape)

    def close(self) -> None:
        """Refuse further reads. The pages go when the last tensor made from them goes."""
        self._closed = True
        self._mapping = self._bytes = None

    def _pass_on(self, nbytes: int) -> None:
        """Note that so much is handed out next, and let go of pages that were touched before."""
        if self._given and self._given + nbytes > _KEPT_BYTES:
            self._given = 0
            if self._mapping is not None and hasattr(self._mapping, "madvise"):
                self._mapping.madvise(mmap.MADV_DONTNEED)
        self._given += nbytes

    def _all(self) -> Tensor:
        """The whole file as bytes."""
        if self._closed:
            raise CheckpointError(f"{self.path} was closed")
        if self._bytes is None:
            try:
                with self.path.open("rb") as file:
                    mapping = _map(file.fileno())
            except (OSError, ValueError) as error:
                raise CheckpointError(f"cannot map {self.path}: {error}") from error
            if len(mapping) < self.size:
                raise CheckpointError(f"{self.path} became shorter while it was being read")
            with warnings.catch_warnings():  # the read-only fallback below makes torch warn
                warnings.filterwarnings("ignore", message="The given buffer is not writable")
                self._bytes = torch.frombuffer(mapping, dtype=torch.uint8)
            self._mapping = mapping
        return self._bytes


def _map(fd: int) -> mmap.mmap:
    """A private mapping: writing to a tensor by mistake copies a page, as long as it is kept, instead of changing the
    file or crashing."""
    if sys.platform == "win32":
        return mmap.mmap(fd, 0, access=mmap.ACCESS_COPY)
    try:
        return mmap.mmap(fd, 0, flags=mmap.MAP_PRIVATE | _NO_RESERVE, prot=mmap.PROT_READ | mmap.PROT_WRITE)
    except OSError:  # strict overcommit accounting charges private writable mappings in full
        return mmap.mmap(fd, 0, access=mmap.ACCESS_READ)
