# SPDX-License-Identifier: Apache-2.0
"""Metadata values: lazy arrays over the mapped file, and look-ups that say what is wrong with a value."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from attrs import define, frozen
from numpy.typing import NDArray

from tramontane.errors import CheckpointError

Buffer = Any
"""``bytes``, or a mapped file: what can be sliced into bytes and unpacked from."""
Numbers = NDArray[Any]


@define(eq=False)
class Strings:
    """An array of texts that stays in the file; iterating decodes it, and costs no memory that lasts.

    The parser has walked it once, so every text lies inside the file. Texts that are not UTF-8 are decoded with
    replacement characters: some old files cut tokens inside a character.
    """

    buffer: Buffer
    offset: int
    """Of the first text's length."""
    count: int

    def __len__(self) -> int:
        return self.count

    def __iter__(self) -> Iterator[str]:
        buffer, at = self.buffer, self.offset
        for _ in range(self.count):
            start = at + 8
            at = start + int.from_bytes(buffer[at:start], "little")
            yield buffer[start:at].decode("utf-8", "replace")

    def __repr__(self) -> str:
        return f"<{self.count} texts>"


def shortest(value: float) -> float:
    """The shortest decimal that is the same float32: 1e-5 again, and not 9.999999747378752e-06."""
    return float(str(np.float32(value)))


Texts = Strings | tuple[str, ...]


@frozen(eq=False)
class Metadata:
    """Key -> value of one file. The typed look-ups give ``None`` for a key that is absent."""

    values: Mapping[str, Any]
    where: str
    """Names the file in errors."""

    def __contains__(self, key: str) -> bool:
        return key in self.values

    def is_array(self, key: str) -> bool:
        """Whether a key holds several values."""
        return isinstance(self.values.get(key), np.ndarray | Strings | tuple)

    def whole(self, key: str, *, least: int = 0) -> int | None:
        """A whole number of at least ``least``, below 2**31."""
        value = self.values.get(key)
        if value is None:
            return None
        if type(value) is not int or not least <= value < 2**31:
            raise self._wrong(key, f"a whole number from {least} to {2**31 - 1}")
        return value

    def real(self, key: str) -> float | None:
        """A finite number."""
        value = self.values.get(key)
        if value is None:
            return None
        if type(value) not in (int, float) or not np.isfinite(value):
            raise self._wrong(key, "a finite number")
        return float(value)

    def flag(self, key: str) -> bool | None:
        """True or false."""
        value = self.values.get(key)
        if value is not None and type(value) is not bool:
            raise self._wrong(key, "true or false")
        return value

    def text(self, key: str) -> str | None:
        """A text."""
        value = self.values.get(key)
        if value is not None and not isinstance(value, str):
            raise self._wrong(key, "a text")
        return value

    def strings(self, key: str) -> Texts | None:
        """An array of texts."""
        value = self.values.get(key)
        if value is not None and not isinstance(value, Strings | tuple):
            raise self._wrong(key, "an array of texts")
        return value

    def reals(self, key: str) -> Numbers | None:
        """An array of floating-point numbers."""
        return self._numbers(key, "f", "an array of floating-point numbers")

    def wholes(self, key: str) -> Numbers | None:
        """An array of whole numbers of at least 16 bits (bytes are what a file has in place of missing numbers)."""
        value = self._numbers(key, "iu", "an array of whole numbers")
        if value is not None and value.dtype.itemsize < 2:
            raise self._wrong(key, "an array of whole numbers wider than a byte")
        return value

    def flags(self, key: str) -> Numbers | None:
        """An array of truth values."""
        return self._numbers(key, "b", "an array of truth values")

    def _numbers(self, key: str, kinds: str, wanted: str) -> Numbers | None:
        value = self.values.get(key)
        if value is None:
            return None
        if not isinstance(value, np.ndarray) or value.dtype.kind not in kinds:
            raise self._wrong(key, wanted)
        return value

    def _wrong(self, key: str, wanted: str) -> CheckpointError:
        value = self.values[key]
        if isinstance(value, np.ndarray):
            found = f"an array of {len(value)} {value.dtype.name} values"
        elif isinstance(value, str):
            found = f"the text {value[:60]!r}"
        else:
            found = repr(value)
        return CheckpointError(f"{self.where}: {key!r} must be {wanted}, not {found}")
