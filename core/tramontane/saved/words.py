# SPDX-License-Identifier: Apache-2.0
"""Memory of layouts as safetensors hold it: whole words, which come first in a file and so begin at cache lines."""

from __future__ import annotations

import torch
from torch import Tensor

from tramontane.errors import CheckpointError

_WORD = torch.int64
_LINE = 64


def as_words(memory: Tensor) -> Tensor:
    """Bytes [n] as words, filled up to whole cache lines: one layout's memory as a file holds it."""
    missing = -memory.numel() % _LINE
    return (torch.nn.functional.pad(memory, (0, missing)) if missing else memory).view(_WORD)


def as_bytes(words: Tensor, nbytes: int) -> Tensor:
    """The bytes of :func:`as_words` again, not copied.

    Raises:
        CheckpointError: They are others than the layout has.
    """
    if words.dtype is not _WORD or words.nbytes - nbytes not in range(_LINE):
        raise CheckpointError(f"{words.nbytes} bytes of {words.dtype} were kept for a layout of {nbytes}")
    return words.view(torch.uint8)[:nbytes]
