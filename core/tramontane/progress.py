# SPDX-License-Identifier: Apache-2.0
"""How long work reports how far it is: bytes done of bytes in all.

Loading, downloading and quantizing report to a :class:`Progress`; frontends decide how, and whether, it is shown. This
module draws nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from attrs import define, frozen


@frozen
class ProgressEvent:
    """One report.

    Attributes:
        phase: What is being done: ``download``, ``load``, ``quantize`` ...
        done: Bytes (or items) finished.
        total: Bytes (or items) in all; 0 if not known.
        item: What is being worked on, such as a tensor's or file's name.
    """

    phase: str
    done: int
    total: int
    item: str = ""

    @property
    def fraction(self) -> float:
        """Share that is done, from 0 to 1."""
        return min(self.done / self.total, 1.0) if self.total else 0.0


class Progress(Protocol):
    """Takes reports. It is called from the working thread and must return quickly."""

    def __call__(self, event: ProgressEvent) -> None:
        """Take one report."""


def silent(event: ProgressEvent) -> None:
    """A :class:`Progress` that shows nothing."""


@define
class Counter:
    """Adds up what is done and reports it.

    Attributes:
        report: Where the reports go.
        phase: See :class:`ProgressEvent`.
        total: Bytes in all.
        done: Bytes finished.
    """

    report: Callable[[ProgressEvent], None]
    phase: str
    total: int
    done: int = 0

    def add(self, count: int, item: str = "") -> None:
        """Count ``count`` further bytes as done."""
        self.done += count
        self.report(ProgressEvent(self.phase, self.done, self.total, item))
