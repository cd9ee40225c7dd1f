# SPDX-License-Identifier: Apache-2.0
"""Broken files by the thousand: each is digested or refused with a typed error, quickly and with little memory."""

from __future__ import annotations

import gc
import random
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path

from tramontane.errors import TramontaneError
from tramontane.memory import PeakMemory

EXTREMES = (0, 1, 0x7F, 0xFF, 2**15, 2**16 - 1, 2**31 - 1, 2**31, 2**32 - 1, 2**63 - 1, 2**63, 2**64 - 1)
"""Numbers that break arithmetic."""
SECONDS = 0.1
GROWTH = 50 * 2**20


def overwrite(content: bytearray, at: int, rng: random.Random) -> None:
    """Turn a bit, put a byte, or put an extreme number at a place."""
    match rng.randrange(4):
        case 0:
            content[at] ^= 1 << rng.randrange(8)
        case 1:
            content[at] = rng.randrange(256)
        case _:
            size = rng.choice((1, 2, 4, 8))
            value = rng.choice(EXTREMES) & (2 ** (8 * size) - 1)
            content[at : at + size] = value.to_bytes(size, "little")


def feed(path: Path, contents: Iterable[bytes], digest: Callable[[Path], object]) -> list[bool]:
    """Digest one content after the other from a file.

    Args:
        path: Where they are written; what breaks the reader is kept beside it.
        contents: The files.
        digest: Reads one.

    Returns:
        Whether each was refused.

    Raises:
        AssertionError: One raised something that is no error of Tramontane's, or took more than :data:`SECONDS` of the
            processor, twice; or all of them left more than :data:`GROWTH` bytes.
    """
    refused: list[bool] = []
    slowest = 0.0
    with PeakMemory() as memory:
        for case, content in enumerate(contents):
            path.unlink(missing_ok=True)  # mapped files are never changed in place
            path.write_bytes(content)
            started = time.process_time()
            try:
                digest(path)
            except TramontaneError:
                refused.append(True)
            except BaseException as error:
                kept = path.with_name(f"case-{case}{path.suffix}")
                kept.write_bytes(content)
                raise AssertionError(f"case {case} ({kept}): {error!r}") from error
            else:
                refused.append(False)
            taken = time.process_time() - started
            if taken >= SECONDS:  # a busy machine or a collection of garbage does not come twice in the same place
                taken = min(taken, _seconds(path, digest))
            slowest = max(slowest, taken)
            if case % 1000 == 0:
                gc.collect()
    if memory.growth >= GROWTH or slowest >= SECONDS:
        raise AssertionError(f"memory grew by {memory.growth} bytes, the slowest file took {slowest:.3f} s")
    return refused


def _seconds(path: Path, digest: Callable[[Path], object]) -> float:
    """Processor time to digest or refuse a file once more."""
    started = time.process_time()
    with suppress(TramontaneError):
        digest(path)
    return time.process_time() - started
