# SPDX-License-Identifier: Apache-2.0
"""Token histories on the device, for sequences whose next token depends on earlier ones.

Owns one row of ids per such sequence. A drawn token is appended where it was drawn, on the device, so that the next
step can be launched before the host has seen it. Sequences without penalties or processors have no row here.

Shapes: S rows of storage, C columns, R rows of the step.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from attrs import define, frozen
from torch import Tensor

from tramontane.ring import on_device

_FIRST_ROWS = 4
_FIRST_COLUMNS = 512


@frozen
class Past:
    """The histories of a step's rows."""

    ids_RC: Tensor
    """int64; columns beyond a row's length repeat its first token, so that they can be gathered and scattered."""
    valid_RC: Tensor
    """bool: the column lies in the row's history."""
    output_RC: Tensor
    """bool: the column is a drawn token, not one of the prompt."""
    length_R1: Tensor
    """int64."""


@define
class History:
    """Rows of token ids with lengths, growing on demand."""

    device: torch.device
    _ids_SC: Tensor
    _length_S: Tensor
    _prompt_S: Tensor
    _free: list[int]
    _lengths: dict[int, int]
    """The lengths once more, for the host: it counts what it asked to append."""

    @classmethod
    def empty(cls, device: torch.device) -> History:
        """No rows; nothing is allocated until the first :meth:`open`."""
        ids_SC = torch.zeros(0, _FIRST_COLUMNS, dtype=torch.int32, device=device)
        none_S = torch.zeros(0, dtype=torch.int64, device=device)
        return cls(device, ids_SC, none_S, none_S.clone(), [], {})

    @torch.inference_mode()
    def open(self, prompt: Sequence[int], output: Sequence[int]) -> int:
        """A new row holding prompt and output; returns its number."""
        length = len(prompt) + len(output)
        self._grow(length + 1)
        row = self._free.pop()
        ids = torch.tensor([*prompt, *output], dtype=torch.int32)
        self._ids_SC[row, :length] = on_device(ids, self.device)
        self._length_S[row] = length
        self._prompt_S[row] = len(prompt)
        self._lengths[row] = length
        return row

    def close(self, row: int) -> None:
        """Give a row back."""
        del self._lengths[row]
        self._free.append(row)

    def append(self, rows: Sequence[int], rows_R: Tensor, tokens_R: Tensor) -> None:
        """Append one token to each row. ``rows_R`` is ``rows`` on the device."""
        self._grow(max(self._lengths[row] for row in rows) + 1, more_rows=False)
        at_R = self._length_S[rows_R]
        self._ids_SC[rows_R, at_R] = tokens_R.to(torch.int32)
        self._length_S[rows_R] = at_R + 1
        for row in rows:
            self._lengths[row] += 1

    @torch.inference_mode()
    def extend(self, row: int, ids: Sequence[int]) -> None:
        """Append tokens to one row."""
        start = self._lengths[row]
        self._grow(start + len(ids), more_rows=False)
        new = torch.tensor(list(ids), dtype=torch.int32)
        self._ids_SC[row, start : start + len(ids)] = on_device(new, self.device)
        self._length_S[row] = self._lengths[row] = start + len(ids)

    def past(self, rows: Sequence[int], rows_R: Tensor) -> Past:
        """What the rows hold, as wide as the longest of them."""
        width = max(self._lengths[row] for row in rows)
        ids_RC = self._ids_SC[rows_R, :width].to(torch.int64)
        length_R1 = self._length_S[rows_R][:, None]
        column_C = torch.arange(width, device=self.device)
        valid_RC = column_C < length_R1
        output_RC = valid_RC & (column_C >= self._prompt_S[rows_R][:, None])
        return Past(torch.where(valid_RC, ids_RC, ids_RC[:, :1]), valid_RC, output_RC, length_R1)

    def ids(self, row: int) -> Tensor:
        """One row's ids, int64 [n]."""
        return self._ids_SC[row, : self._lengths[row]].to(torch.int64)

    def _grow(self, columns: int, more_rows: bool = True) -> None:
        """Make room for one more row (if asked) and for ``columns`` ids in each."""
        rows, width = self._ids_SC.shape
        new_rows = max(_FIRST_ROWS, 2 * rows) if more_rows and not self._free else rows
        new_width = width if columns <= width else max(columns, 2 * width)
        if (new_rows, new_width) == (rows, width):
            return
        self._ids_SC = torch.nn.functional.pad(self._ids_SC, (0, new_width - width, 0, new_rows - rows))
        self._length_S = torch.nn.functional.pad(self._length_S, (0, new_rows - rows))
        self._prompt_S = torch.nn.functional.pad(self._prompt_S, (0, new_rows - rows))
        self._free.extend(range(new_rows - 1, rows - 1, -1))
