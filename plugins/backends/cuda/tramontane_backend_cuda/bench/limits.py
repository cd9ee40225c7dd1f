# SPDX-License-Identifier: Apache-2.0
"""What a card can do at best, and the lines of the table that say how near something comes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from attrs import frozen

if TYPE_CHECKING:
    import torch


@frozen
class Card:
    """Limits of a device, as the best kernels reach them (``docs/performance/cuda.md``)."""

    name: str
    bytes_per_s: float
    flops_per_s: float
    """bfloat16, on random data."""


CARDS = (
    Card("H200", 4.4e12, 788e12),
    Card("H100 80GB", 3.05e12, 720e12),
    Card("A100", 1.8e12, 265e12),
)
HOST = Card("host", 10e9, 50e9)
"""Stands for a card in smoke runs: no limit that anyone should compare with."""


def this_card(device: torch.device) -> Card:
    """The limits of a device: by name, else by what its clock and width say."""
    import torch  # whoever only prints a table does without

    if device.type != "cuda":
        return HOST
    name = torch.cuda.get_device_name(device)
    known = next((card for card in CARDS if all(word in name for word in card.name.split())), None)
    if known is not None:
        return known
    found = torch.cuda.get_device_properties(device)
    clock, width = getattr(found, "memory_clock_rate", 0), getattr(found, "memory_bus_width", 0)
    peak = 2e3 * clock * width / 8 or HOST.bytes_per_s
    return Card(name, 0.9 * peak, HOST.flops_per_s)


@frozen(kw_only=True)
class Line:
    """One result."""

    section: str
    what: str
    value: float
    unit: str
    limit: float | None = None
    """In the same unit."""
    goal: float | None = None
    lower_is_better: bool = False
    check: str = ""
    """``ok``, or what is wrong with the numbers computed."""

    @property
    def share(self) -> float | None:
        """How near the limit: 1 is at it."""
        if not self.limit or not self.value:
            return None
        return self.limit / self.value if self.lower_is_better else self.value / self.limit

    @property
    def reached(self) -> bool | None:
        """Whether the goal is reached; ``None`` without one."""
        if self.goal is None:
            return None
        return self.value <= self.goal if self.lower_is_better else self.value >= self.goal

    @property
    def wrong(self) -> bool:
        """Whether the numbers computed are not those of the reference."""
        return self.check not in ("", "ok")


def table(lines: Sequence[Line], *, header: bool = True) -> str:
    """All results, with limits and goals beside them."""
    rows = [("section", "what", "result", "unit", "limit", "of limit", "goal", "numbers")] * header
    for line in lines:
        share, verdict = line.share, {None: "", True: " reached", False: " MISSED"}[line.reached]
        rows.append(
            (
                line.section,
                line.what,
                _number(line.value),
                line.unit,
                "" if line.limit is None else _number(line.limit),
                "" if share is None else f"{share:.0%}",
                "" if line.goal is None else _number(line.goal) + verdict,
                line.check,
            )
        )
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
    )


def _number(value: float) -> str:
    return f"{value:,.0f}" if value >= 1000 else f"{value:.3g}"
