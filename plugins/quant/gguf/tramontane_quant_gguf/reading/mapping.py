# SPDX-License-Identifier: Apache-2.0
"""Files as mapped bytes for the parsers. Tensor data is mapped apart, by the core."""

from __future__ import annotations

import mmap
from pathlib import Path

from tramontane.errors import CheckpointError
from tramontane_quant_gguf.reading.values import Buffer


def mapped(path: Path) -> Buffer:
    """The whole file, read-only; it stays mapped as long as an array of its metadata is used.

    Raises:
        CheckpointError: The file is empty or cannot be read.
    """
    try:
        with path.open("rb") as file:
            return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    except ValueError as error:
        raise CheckpointError(f"{path} is empty", hint="the download may have failed; fetch the file again") from error
    except OSError as error:
        raise CheckpointError(f"cannot read {path}: {error.strerror or error}") from error


def first_bytes(path: Path, count: int = 4) -> bytes:
    """The first bytes of a file; nothing where it cannot be read."""
    try:
        with path.open("rb") as file:
            return file.read(count)
    except OSError:
        return b""
